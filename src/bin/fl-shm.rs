//! The stand-alone `fl-shm`.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(fast_litellm::cli::run(std::env::args_os().collect()))
}
