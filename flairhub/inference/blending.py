"""From overlapping windows of probabilities to one map, in strips of bounded memory.

Probabilities of a strip as high as one window are kept; once the windows have moved south, its
rows are final and only their class and confidence stay. The largest ROI of FLAIR-HUB (10,240 pixels
wide, 19 classes, windows of 512 pixels) needs about 0.4 GB at a time in place of 8.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from flairhub.inference.windows import raised_cosine

NODATA: Final = 255
"""Class and confidence of pixels that no window covers."""


class Blender:
    """Adds up windows, row by row from the north, into classes and confidence.

    Parameters
    ----------
    height, width
        Pixels of the map.
    classes
        Length of the first axis of every window.
    size
        Side of a window, pixels.
    """

    def __init__(self, height: int, width: int, *, classes: int, size: int) -> None:
        self._classes = np.full((height, width), NODATA, np.uint8)
        self._confidence = np.full((height, width), NODATA, np.uint8)
        self._weights = raised_cosine(size)
        self._sums = np.zeros((classes, size, width), np.float32)
        self._weight_sums = np.zeros((size, width), np.float32)
        self._top = 0

    def add(self, row: int, column: int, probabilities: npt.NDArray[np.float32]) -> None:
        """Add one window.

        Parameters
        ----------
        row, column
            Its north-west pixel; `row` never decreases from call to call.
        probabilities
            Shape ``(classes, size, size)``, float32, adding up to 1 over the classes.

        Raises
        ------
        ValueError
            If the window lies north of one that was added before.
        """
        if row < self._top:
            msg = f"Windows must come row by row: row {row} comes after row {self._top}."
            raise ValueError(msg)
        self._move_to(row)
        columns = slice(column, column + probabilities.shape[2])
        self._sums[:, :, columns] += self._weights * probabilities
        self._weight_sums[:, columns] += self._weights

    def finish(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Return classes and confidence (percent), both ``(height, width)``, `NODATA` unseen."""
        self._move_to(self._classes.shape[0])
        return self._classes, self._confidence

    def _move_to(self, row: int) -> None:
        """Make the rows above `row` final and begin the strip there."""
        size = self._weight_sums.shape[0]
        done = min(row - self._top, size, self._classes.shape[0] - self._top)
        if done <= 0:
            return
        seen = self._weight_sums[:done] > 0
        sums, rows = self._sums[:, :done], slice(self._top, self._top + done)
        share = sums.max(axis=0) / np.where(seen, self._weight_sums[:done], 1)
        self._classes[rows] = np.where(seen, sums.argmax(axis=0), NODATA)
        self._confidence[rows] = np.where(seen, np.rint(100 * share), NODATA)
        for strip in (self._sums, self._weight_sums):
            strip[..., : size - done, :] = strip[..., done:, :]
            strip[..., size - done :, :] = 0
        self._top = row
