"""Which paths can a network take whose control flow depends on data, and what do they share?"""
