"""Tuning constants of the NumPy backend.

They control the time and the memory of a computation. Constants that cut a sum into chunks also
determine the order of its additions, and therefore its last bits. 2**17 numbers are 512 kB in
float32.
"""

# Element-wise operations -----------------------------------------------------------------------

IMAGE_CHUNK_ELEMENTS = 2**17
"""Elements of images that one task processes. Larger chunks leave the cache. Smaller ones need more
calls, and threads acquire Python's lock more often."""

IMAGE_CHUNK_LANES = 4096
"""Largest number of lanes (``ops/lanes.py``) in a chunk of images, so that it has enough rows."""

IMAGE_CHUNK_ROWS = 256
"""Largest number of rows in a chunk of images. The rounding error of a sum grows with it."""

THREADING_MIN_ELEMENTS = 2**20
"""Array size from which threads share an operation. Starting the threads takes 50 to 300 µs,
depending on how fast a machine wakes up a core, and their data must enter that core's cache."""

POOLING_CHUNK_ELEMENTS = 2**19
"""Elements of pooled images that one task processes. The output of 2x2 pooling is a quarter of
that. With smaller chunks, threads wait for Python's lock."""

FLATTEN_CHUNK_SAMPLES = 4
"""Samples whose memory layout is changed at once, so that they stay in the cache."""

# Parameter updates -----------------------------------------------------------------------------

UPDATE_CHUNK_ELEMENTS = 2**18
"""Parameters that one task updates. With smaller chunks, threads wait for Python's lock."""

UPDATE_THREADING_MIN_ELEMENTS = 2**20
"""Number of parameters from which threads share an update."""

# Matrix products -------------------------------------------------------------------------------

DENSE_TRANSPOSED_BELOW_ELEMENTS = 2**19
"""Size below which a dense weight is stored transposed, as (in, out). OpenBLAS then computes x Wᵀ
and (gᵀ x)ᵀ 10 to 33 % faster, which outweighs the slower g W. A larger weight leaves the cache in
every step; stored as (out, in), W xᵀ reads it in memory order."""

SINGLE_BLAS_THREAD_FLOPS = range(2**19, 2**24)
"""FLOPs of the largest layer in a batch's forward pass for which one thread is used although
OpenBLAS would use several. Two cores hardly speed up a tenth of a millisecond of work, and the
update then fetches its data from the other core's cache, two to three times slower if the cores of
a virtual machine are distant."""

EVALUATION_CHUNK_ELEMENTS = 2**21
"""Elements of the largest layer's output in a chunk of an evaluation, at least one sample."""

# Convolution -----------------------------------------------------------------------------------

IM2COL_CHUNK_ELEMENTS = 2**17
"""Elements of the matrix of windows in a chunk. A chunk has at least one row of windows."""

COL2IM_CHUNK_ELEMENTS = 2**18
"""The same for the input gradient, which needs one call for each kernel position of a chunk."""

IM2COL_CHUNK_IMAGES = 16
"""Images per task when images are padded and in the input gradient."""

WINOGRAD_MIN_CHANNELS = 16
"""Number of channels, in and out, from which Winograd's method is faster than im2col."""

WINOGRAD_RUN_ELEMENTS = 1024
"""Elements of a run (``ops/winograd.py``) from which the transforms of tiles are efficient."""

WINOGRAD_MIN_TILES, WINOGRAD_TILES = 128, 256
"""Least number of tiles in a chunk, for efficient products, and the number if channels are few."""

# Sums over chunks ------------------------------------------------------------------------------

MAX_PARTIAL_SUMS = 8
"""Largest number of partial sums, and so of threads that share a sum."""

MAX_PARTIAL_SUM_ELEMENTS = 2**24
"""Elements of all partial sums together. Two partial sums may have more."""

PARALLEL_SUM_MIN_ELEMENTS, PARALLEL_SUM_CHUNKS = 2**18, 4
"""Array size from which threads share the addition of partial sums, and its number of chunks."""
