"""Fast marching: arrival times of a front on a grid of any dimension, from one point.

Cells are numbered as in a C-ordered array. Cells that may be accepted next stand in a binary heap
that knows where each of them is.
"""

from typing import no_type_check

import numba
import numpy as np

FAR, TRIAL, ACCEPTED = 0, 1, 2


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _rise(heap, place, time, position):
    """Move an entry of the heap up to where it belongs."""
    cell = heap[position]
    while position > 0:
        parent = (position - 1) // 2
        if time[heap[parent]] <= time[cell]:
            break
        heap[position] = heap[parent]
        place[heap[position]] = position
        position = parent
    heap[position] = cell
    place[cell] = position


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _sink(heap, count, place, time, position):
    """Move an entry of the heap down to where it belongs."""
    cell = heap[position]
    while 2 * position + 1 < count:
        child = 2 * position + 1
        if child + 1 < count and time[heap[child + 1]] < time[heap[child]]:
            child += 1
        if time[cell] <= time[heap[child]]:
            break
        heap[position] = heap[child]
        place[heap[position]] = position
        position = child
    heap[position] = cell
    place[cell] = position


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _look_upwind(time, state, shape, strides, cell, index, near, side, second):
    """Find the earlier accepted neighbour along every axis, and whether another lies behind it.

    Args:
        time: Of all cells.
        state: Of all cells.
        shape: Cells along each axis.
        strides: How far apart neighbours along each axis are numbered.
        cell: Number of the cell that looks.
        index: Its place along every axis.
        near: Result, time of the neighbour; infinite without one.
        side: Result, -1 or 1, where the neighbour is.
        second: Result, time of the cell behind it; infinite if it is of no use.
    """
    for axis in range(len(shape)):
        near[axis], second[axis] = np.inf, np.inf
        for way in (-1, 1):
            if 0 <= index[axis] + way < shape[axis]:
                other = cell + way * strides[axis]
                if state[other] == ACCEPTED and time[other] < near[axis]:
                    near[axis], side[axis] = time[other], way
        if near[axis] < np.inf and 0 <= index[axis] + 2 * side[axis] < shape[axis]:
            other = cell + 2 * side[axis] * strides[axis]
            if state[other] == ACCEPTED and time[other] <= near[axis]:
                second[axis] = time[other]


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _update_first(slowness, spacing, near, order):
    """Solve Σ_a ((T − T_a)/h_a)² = 1/F² over the axes that the front comes along."""
    total, linear, square, found = 0.0, 0.0, 0.0, np.inf
    for axis in order:
        if near[axis] >= found:
            break
        weight = 1 / spacing[axis] ** 2
        total += weight
        linear += weight * near[axis]
        square += weight * near[axis] ** 2
        inside = linear**2 - total * (square - slowness**2)
        found = (linear + np.sqrt(max(inside, 0.0))) / total
    return found


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _update_second(slowness, spacing, offset, near, side, second, first):
    """Solve the same for τ = T/|x − x₀|, with differences of second order where they exist.

    Args:
        slowness: 1/F here.
        spacing: Of the grid.
        offset: x − x₀.
        near: As `_look_upwind` leaves it.
        side: The same.
        second: The same.
        first: Solution of first order, which tells what axes the front comes along.

    Returns:
        T; not a number if there is no solution that is later than all it is made from.
    """
    distance = 0.0
    for axis in range(len(spacing)):
        distance += offset[axis] ** 2
    distance = np.sqrt(distance)
    a, b, c, latest = 0.0, 0.0, -(slowness**2), 0.0
    for axis in range(len(spacing)):
        if near[axis] >= first:
            continue
        latest = max(latest, near[axis])
        step = side[axis] * spacing[axis]
        squares = distance**2 - offset[axis] ** 2
        value = near[axis] / np.sqrt(squares + (offset[axis] + step) ** 2)
        rate = -distance / step
        if second[axis] < np.inf:
            behind = second[axis] / np.sqrt(squares + (offset[axis] + 2 * step) ** 2)
            value = (4 * value - behind) / 3
            rate *= 1.5
        slope = rate + offset[axis] / distance
        a += slope**2
        b += slope * rate * value
        c += (rate * value) ** 2
    inside = b**2 - a * c
    if not inside >= 0:
        return np.nan
    found = distance * (b + np.sqrt(inside)) / a
    return found if found >= latest else np.nan


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _sort(near, order):
    """Put axes in the order of their times."""
    for i in range(len(near)):
        position = i
        while position > 0 and near[order[position - 1]] > near[i]:
            order[position] = order[position - 1]
            position -= 1
        order[position] = i


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _touch(cell, heap, count, place, time, state):
    """Put a cell where it belongs after its time has been set; return the length of the heap."""
    if state[cell] == FAR:
        state[cell] = TRIAL
        heap[count] = cell
        place[cell] = count
        count += 1
    _rise(heap, place, time, place[cell])
    _sink(heap, count, place, time, place[cell])
    return count


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def march(time, slowness, shape, spacing, start, goal):
    """Fill in when a front that leaves `start` reaches each cell.

    Args:
        time: Result, one per cell; finite values there are kept as they are, and the front leaves
            from these cells.
        slowness: 1/F of every cell.
        shape: Cells along each axis.
        spacing: Distance between cells along each axis.
        start: Place of the source in cells, which need not be whole numbers.
        goal: Cells; once the front has passed all of them it stops. Without any it goes everywhere.
    """
    dimension, cells = len(shape), len(time)
    strides = np.ones(dimension, np.int64)
    for axis in range(dimension - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    state = np.zeros(cells, np.uint8)
    heap, place, count = np.empty(cells, np.int32), np.empty(cells, np.int32), 0
    index, order = np.empty(dimension, np.int64), np.empty(dimension, np.int64)
    side, offset = np.empty(dimension, np.int64), np.empty(dimension)
    near, second = np.empty(dimension), np.empty(dimension)
    for cell in range(cells):
        if time[cell] < np.inf:
            count = _touch(cell, heap, count, place, time, state)
    kept, left = time < np.inf, len(goal)
    while count > 0:
        front = heap[0]
        count -= 1
        heap[0] = heap[count]
        if count > 0:
            _sink(heap, count, place, time, 0)
        state[front] = ACCEPTED
        for cell in goal:
            if cell == front:
                left -= 1
        if left == 0 and len(goal) > 0:
            break
        for axis in range(dimension):
            index[axis] = front // strides[axis] % shape[axis]
        for axis in range(dimension):
            for way in (-1, 1):
                cell = front + way * strides[axis]
                if not 0 <= index[axis] + way < shape[axis]:
                    continue
                if state[cell] == ACCEPTED or kept[cell]:
                    continue
                index[axis] += way
                _look_upwind(time, state, shape, strides, cell, index, near, side, second)
                _sort(near, order)
                for other in range(dimension):
                    offset[other] = (index[other] - start[other]) * spacing[other]
                index[axis] -= way
                first = _update_first(slowness[cell], spacing, near, order)
                found = _update_second(slowness[cell], spacing, offset, near, side, second, first)
                time[cell] = max(found if found == found else first, time[front])
                count = _touch(cell, heap, count, place, time, state)
