//! The program: parse arguments, run one command, print the error chain.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match countersign::cli::run(std::env::args_os()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("countersign: {error:#}");
            ExitCode::FAILURE
        }
    }
}
