"""DBOS: a workflow of steps, each of which does nothing; the result of each is committed before the next begins."""

from dbos import DBOS, DBOSConfig

from steps import LENGTH, Spent, drive

NAME = "DBOS"
HOW = "an `async` workflow that awaits 50 `async` steps; each step's result is a commit of its own"
PACKAGES = ("dbos",)


@DBOS.step()
async def noop(value: int) -> int:
    return value + 1


@DBOS.workflow()
async def chain(value: int) -> int:
    for _ in range(LENGTH):
        value = await noop(value)
    return value


async def once() -> int:
    if await chain(0) != LENGTH:
        raise RuntimeError("a wrong result")
    return LENGTH


async def measure(url: str, clients: int, seconds: float) -> Spent:
    config: DBOSConfig = {"name": "bench", "system_database_url": url, "log_level": "ERROR", "enable_otlp": False}
    DBOS(config=config)
    DBOS.launch()
    try:
        return await drive(once, clients, seconds)
    finally:
        DBOS.destroy()
