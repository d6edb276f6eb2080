//! The binary `millstream`.

/// In place of libc's malloc for C too: librdkafka allocates in one thread and frees in another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    std::process::exit(millstream::cli::main());
}
