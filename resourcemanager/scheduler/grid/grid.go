// Package grid indexes nodes by what they have free. It owns sets of node slots: bitmaps, of which 64 slots are one word. A cell
// of the grid is the nodes with about as much free cpu and memory; a diagonal is the cells with the same sum of levels.
package grid

import (
	"math/bits"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// Grid indexes open nodes by what they have free: 64 levels of cpu by 64 levels of memory, each cell a set of nodes. Levels are
// logarithmic, four for each factor of two, so that the relative precision is the same for nearly full and empty nodes. Along a
// diagonal cpu level + memory level is constant; low diagonals hold the fullest nodes.
type Grid struct {
	cells [Levels][Levels]*Set
	// diagonals has, for each diagonal, a bit for each cpu level whose cell has members.
	diagonals [Diagonals]uint64
	// words is how many words a bitmap of all slots has.
	words int
}

// Diagonals is how many diagonals a grid has.
const Diagonals = 2*Levels - 1

// Grow makes room for slots.
func (g *Grid) Grow(slots int) { g.words = (slots + 63) / 64 }

// Words is how many words a bitmap of all slots has.
func (g *Grid) Words() int { return g.words }

// At is the nodes of a cell; nil is none.
func (g *Grid) At(cpu, memory int) *Set { return g.cells[cpu][memory] }

const (
	// Levels is how many levels of cpu, and of memory, there are.
	Levels     = 64
	cpuUnit    = 2        // millicores; the top level begins at 229 cores
	memoryUnit = 16 << 20 // bytes; the top level begins at 1.75 TiB
)

// level is the largest l such that everything in levels above l exceeds amount.
func level(amount, unit int64) int {
	if amount < 4*unit {
		return int(max(amount, 0) / unit)
	}
	quotient := uint64(amount / unit)
	exponent := bits.Len64(quotient) - 1
	return min(4*(exponent-1)+int(quotient>>(exponent-2)&3), Levels-1)
}

// Cell is a level of cpu and one of memory.
type Cell struct{ CPU, Memory int8 }

// Nowhere is the cell of nodes that are not in the grid.
var Nowhere = Cell{-1, -1}

// CellOf is the cell of a node with so much free, and the lowest whose nodes may have as much.
func CellOf(v *resource.Vector) Cell {
	return Cell{int8(level(v[resource.CPU], cpuUnit)), int8(level(v[resource.Memory], memoryUnit))}
}

// Add puts a node into a cell.
func (g *Grid) Add(slot int32, at Cell) {
	set := g.cells[at.CPU][at.Memory]
	if set == nil {
		set = &Set{}
		g.cells[at.CPU][at.Memory] = set
	}
	set.add(slot, g.words)
	g.diagonals[int(at.CPU)+int(at.Memory)] |= 1 << at.CPU
}

// Remove takes a node out of a cell.
func (g *Grid) Remove(slot int32, at Cell) {
	set := g.cells[at.CPU][at.Memory]
	set.remove(slot)
	if set.count == 0 {
		g.diagonals[int(at.CPU)+int(at.Memory)] &^= 1 << at.CPU
	}
}

// AtLeast has a bit for each cpu level on the diagonal whose cell has members and lies at or above floor in both
// dimensions.
func (g *Grid) AtLeast(diagonal int, floor Cell) uint64 {
	mask := g.diagonals[diagonal] >> floor.CPU << floor.CPU
	top := diagonal - int(floor.Memory)
	if top < 0 {
		return 0
	}
	if top < Levels-1 {
		mask &= 1<<(top+1) - 1
	}
	return mask
}
