"""Tuning constants of the NumPy backend.

They control the time and the memory of a computation. Constants that divide a sum into chunks also
determine the order of the additions, and therefore the last bits of the sum. 2**17 numbers are 512
kB in float32.
"""

# Element-wise operations -----------------------------------------------------------------------

IMAGE_CHUNK_ELEMENTS = 2**17
"""Number of elements that one task processes. Larger chunks do not fit into the cache. Smaller
chunks need more calls, and threads acquire Python's lock more often."""

IMAGE_CHUNK_LANES = 4096
"""Maximum number of lanes (``ops/lanes.py``) in a chunk of images, so that it has enough rows."""

IMAGE_CHUNK_ROWS = 256
"""Maximum number of rows in a chunk of images. With more rows, the rounding error of sums grows."""

THREADING_MIN_ELEMENTS = 2**20
"""Number of elements from which threads share an operation. Waking the threads takes 50 to 300 µs,
depending on the machine, and each core must first load its part of the array into its cache."""

POOLING_CHUNK_ELEMENTS = 2**19
"""Number of input elements that one task of a pooling layer processes. With smaller chunks, threads
wait for Python's lock, because 2x2 pooling has only a quarter as many output elements."""

FLATTEN_CHUNK_SAMPLES = 4
"""Number of samples whose memory layout is changed at once, so that they fit into the cache."""

# Parameter updates -----------------------------------------------------------------------------

UPDATE_CHUNK_ELEMENTS = 2**18
"""Number of parameters per task. With smaller chunks, threads wait for Python's lock."""

UPDATE_THREADING_MIN_ELEMENTS = 2**20
"""Number of parameters from which threads share an update."""

# Matrix products -------------------------------------------------------------------------------

DENSE_TRANSPOSED_BELOW_ELEMENTS = 2**19
"""Number of elements below which a dense weight W is stored transposed, as (in, out). For inputs x
and output gradients g, OpenBLAS then computes x Wᵀ and (gᵀ x)ᵀ 10 to 33 % faster, which outweighs
the slower g W. A larger weight exceeds the cache: as (out, in), it is read in order by W xᵀ."""

SINGLE_BLAS_THREAD_FLOPS = range(2**19, 2**24)
"""Range of the largest layer's FLOPs per batch in which one BLAS thread is used, although OpenBLAS
would use several. Two cores hardly speed up a tenth of a millisecond of work. With two threads, the
update would read data from the cache of another core, which takes two to three times as long if the
cores of a virtual machine are distant."""

EVALUATION_CHUNK_ELEMENTS = 2**21
"""Maximum number of elements of a layer's output in evaluation. One sample may have more."""

# Convolution -----------------------------------------------------------------------------------

IM2COL_CHUNK_ELEMENTS = 2**17
"""Maximum number of elements of a chunk's matrix of windows. One row of windows may have more."""

COL2IM_CHUNK_ELEMENTS = 2**18
"""Maximum number of terms of the input gradient in a chunk. One row of windows may have more."""

IM2COL_CHUNK_IMAGES = 16
"""Number of images per task, in the padding of images and in the input gradient."""

WINOGRAD_MIN_CHANNELS = 16
"""Number of input and output channels from which Winograd's method is faster than im2col."""

WINOGRAD_RUN_ELEMENTS = 1024
"""Length of a run (``ops/winograd.py``) from which the transforms of tiles are efficient."""

WINOGRAD_MIN_TILES, WINOGRAD_TILES = 128, 256
"""Tiles in a chunk for efficient matrix products: the minimum, and the number up to 64 channels."""

# Sums over chunks ------------------------------------------------------------------------------

MAX_PARTIAL_SUMS = 8
"""Maximum number of partial sums, and therefore of threads that share a sum."""

MAX_PARTIAL_SUM_ELEMENTS = 2**24
"""Maximum number of elements of all partial sums together. Two partial sums may have more."""

PARALLEL_SUM_MIN_ELEMENTS, PARALLEL_SUM_CHUNKS = 2**18, 4
"""Size from which threads share the addition of two arrays, and number of chunks of an array."""
