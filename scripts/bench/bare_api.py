"""The least that answers a poll: one FastAPI handler that makes one indexed query on the service's own database.

python scripts/bench/bare_api.py PORT, with RECAST_DATABASE_URL in the environment. GET /{id}: state of that conversion.
"""

import os
import sys

import uvicorn
from fastapi import FastAPI, HTTPException
from sqlalchemy import select

from app.database.session import Database
from app.database.tables import Conversion

app = FastAPI()
database = Database(os.environ["RECAST_DATABASE_URL"], 10)


@app.get("/{id}")
async def state(id: str) -> dict[str, str]:
    async with database.transaction() as session:
        found = (await session.execute(select(Conversion.state, Conversion.stage).where(Conversion.id == id))).first()
    if found is None:
        raise HTTPException(404)
    return {"id": id, "state": found.state, "stage": str(found.stage)}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
