"""Uploads a file by tuspy: one part, then the rest as a resumed upload. Arguments: url, token, session, path, file."""

import sys

from tusclient import client  # type: ignore[import-not-found]  # beside our environment: `make interop-tools`

url, token, session, path, file = sys.argv[1:6]
tus = client.TusClient(url, headers={"Authorization": f"Bearer {token}"})
first = tus.uploader(file, chunk_size=100_000, metadata={"session": session, "path": path}, upload_checksum=True)
first.upload_chunk()
resumed = tus.uploader(file, chunk_size=100_000, url=first.url, upload_checksum=True)
print(resumed.offset)
resumed.upload()
print(resumed.offset)
