"""The computation behind all layers: statistics, both passes, operators, running averages, exchange."""
