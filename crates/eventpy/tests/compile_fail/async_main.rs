#[eventpy::main]
async fn main() -> eventpy::Result<()> {
    Ok(())
}
