"""Stores that watch what is asked of them."""

from __future__ import annotations

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import MemoryStore, WrapperStore


class RecordingStore(MemoryStore):
    """A store in memory that logs what is written and deleted, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, str]] = []

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        self.log.append(("set", key))
        await super().set(key, value, byte_range)

    async def delete(self, key: str) -> None:
        self.log.append(("delete", key))
        await super().delete(key)


class CountingStore(WrapperStore[Store]):
    """A store around another that counts every request."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.requests: list[str] = []

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        self.requests.append(key)
        return await self._store.get(key, prototype, byte_range)

    async def exists(self, key: str) -> bool:
        self.requests.append(key)
        return await self._store.exists(key)


class FailingStore(MemoryStore):
    """A store in memory whose writes fail from the n-th on, until it is mended."""

    def __init__(self, good_writes: int, error: Exception) -> None:
        super().__init__()
        self.left = good_writes
        self.error: Exception | None = error

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        if self.left <= 0 and self.error is not None:
            raise self.error
        self.left -= 1
        await super().set(key, value, byte_range)
