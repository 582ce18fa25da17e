import asyncio

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse

app = FastAPI()


@app.get('/', response_class=PlainTextResponse)
async def version():
    return '@VERSION@'


@app.post('/echo', response_class=PlainTextResponse)
async def echo(request: Request):
    return await request.body()


@app.get('/events')
async def events():
    async def ticks():
        while True:
            yield 'data: tick\n\n'
            await asyncio.sleep(0.2)

    return StreamingResponse(ticks(), media_type='text/event-stream')
