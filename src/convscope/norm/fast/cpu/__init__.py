"""Batch norm and a piecewise linear activation on CPUs, forward and backward, compiled by numba.

===========  ===========================  ==========================================================
kernels      memory layout                what stays in the cache between its passes
===========  ===========================  ==========================================================
``planes``   contiguous, large maps       a channel: all its maps, one after the other
``columns``  contiguous, small maps       some channels, whose maps lie side by side in each sample
``rows``     channels_last, (N, C)        a block of rows of all channels; the passes read memory anew
===========  ===========================  ==========================================================
"""
