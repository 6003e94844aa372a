package scheduler

import (
	"math/bits"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// grid indexes open nodes by what they have free: 64 levels of cpu by 64 levels of memory, each cell a set of
// nodes. Levels are logarithmic, four to an octave, so that nearly full nodes are told apart as finely as their
// sizes deserve. Along a diagonal cpu level + memory level is constant; low diagonals hold the fullest nodes.
type grid struct {
	cells [levels][levels]*nodeSet
	// diagonals has, for each diagonal, a bit for each cpu level whose cell has members.
	diagonals [2*levels - 1]uint64
	words     int
}

const (
	levels     = 64
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
	return min(4*(exponent-1)+int(quotient>>(exponent-2)&3), levels-1)
}

type cell struct{ cpu, memory int8 }

var nowhere = cell{-1, -1}

func cellOf(v *resource.Vector) cell {
	return cell{int8(level(v[resource.CPU], cpuUnit)), int8(level(v[resource.Memory], memoryUnit))}
}

func (g *grid) add(slot int32, at cell) {
	set := g.cells[at.cpu][at.memory]
	if set == nil {
		set = &nodeSet{}
		g.cells[at.cpu][at.memory] = set
	}
	set.add(slot, g.words)
	g.diagonals[int(at.cpu)+int(at.memory)] |= 1 << at.cpu
}

func (g *grid) remove(slot int32, at cell) {
	set := g.cells[at.cpu][at.memory]
	set.remove(slot)
	if set.count == 0 {
		g.diagonals[int(at.cpu)+int(at.memory)] &^= 1 << at.cpu
	}
}

// atLeast has a bit for each cpu level on the diagonal whose cell has members and lies at or above floor in both
// dimensions.
func (g *grid) atLeast(diagonal int, floor cell) uint64 {
	mask := g.diagonals[diagonal] >> floor.cpu << floor.cpu
	top := diagonal - int(floor.memory)
	if top < 0 {
		return 0
	}
	if top < levels-1 {
		mask &= 1<<(top+1) - 1
	}
	return mask
}
