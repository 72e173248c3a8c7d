"""Flash that holds bitstreams, and what an FPGA says of itself: pieces of the two FPGA drivers."""
