"""Who goes with whom, one to one, so that the sum of all pairs' gains is as large as it can be.

The method of Kuhn and Munkres in its form with shortest augmenting paths: rows are placed one after the
other, and each may move those before it. n rows take at most n² steps over a row.

Source: Crouse 2016, "On implementing 2D rectangular assignment algorithms", doi 10.1109/TAES.2016.140952.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def assigned(gains: Float[Matrix, "n m"]) -> list[tuple[int, int]]:
    """Return min(n, m) pairs (row, column) with the largest sum of gains, by row.

    Example:
        >>> assigned(np.array([[9.0, 8.0], [8.0, 1.0]]))
        [(0, 1), (1, 0)]
    """
    if gains.shape[0] > gains.shape[1]:
        return sorted((row, column) for column, row in assigned(gains.T))
    table = _Table(-gains)
    for row in range(len(gains)):
        table.place(row)
    return list(enumerate(table.column_of.tolist()))


@dataclass(init=False)
class _Table:
    """Rows that have their columns, and prices at which none of them gains by moving."""

    def __init__(self, costs: Matrix) -> None:
        rows, columns = costs.shape
        self.costs = costs
        self.of_rows, self.of_columns = np.zeros(rows), np.zeros(columns)
        self.row_of, self.column_of = np.full(columns, -1), np.full(rows, -1)

    def place(self, row: int) -> None:
        """Give a row a column, others moving along the path that costs least."""
        distances = np.full(len(self.row_of), np.inf)
        before = np.full(len(self.row_of), -1)
        reached = np.zeros(len(self.row_of), bool)
        current, distance = row, 0.0
        while current >= 0:
            through = distance + self.costs[current] - self.of_rows[current] - self.of_columns
            shorter = ~reached & (through < distances)
            distances[shorter], before[shorter] = through[shorter], current
            column = int(np.where(reached, np.inf, distances).argmin())
            distance, reached[column] = float(distances[column]), True
            current = int(self.row_of[column])
        self.of_rows[row] += distance
        moved = reached & (self.row_of >= 0)
        self.of_rows[self.row_of[moved]] += distance - distances[moved]
        self.of_columns[moved] -= distance - distances[moved]
        self._move(row, column, before)

    def _move(self, row: int, column: int, before: NDArray[np.int64]) -> None:
        while True:
            mover = int(before[column])
            self.row_of[column] = mover
            self.column_of[mover], column = column, int(self.column_of[mover])
            if mover == row:
                return
