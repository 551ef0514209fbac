"""Options of XLA that the tests share."""

# For programs that run once: compiling them takes longest. Partitioning is not affected.
COMPILE_SOON = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
