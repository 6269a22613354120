//! stub
use crate::{
    cli::DemoArgs,
    exit::{Exit, Failure},
};
pub(crate) async fn run(_args: DemoArgs) -> Result<Exit, Failure> {
    Ok(Exit::Ok)
}
