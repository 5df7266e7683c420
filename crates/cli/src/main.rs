//! temp
#[allow(dead_code, unused_imports)]
mod bench;
#[allow(dead_code, unused_imports)]
mod cli_error;
use clap::Parser;
#[derive(clap::Parser)]
struct A { #[arg(long)] database: Option<String>, #[command(flatten)] b: bench::BenchArgs }
#[tokio::main]
async fn main() { let a = A::parse(); match bench::run(a.b, a.database).await { Ok(r) => print!("{}", r.text()), Err(e) => println!("{e:?}") } }
