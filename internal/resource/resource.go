// Package resource has quantities of a node's resources: a fixed vector to compute with, and the text forms that people
// write.
//
// It is pure. A Vector is quantities in the order of a Schema, which names the countable resources of a zone.
package resource

import "math"

// These are the indexes of the vector. Those from Extended on are named by a Schema.
const (
	CPU      = iota // millicores
	Memory          // bytes
	Disk            // bytes
	Ports           // host ports
	Extended        // the first of the named ones
	Size     = 8
)

// Vector is a quantity of every resource, by index. Arithmetic saturates and never wraps.
type Vector [Size]int64

// Add is v + w.
func (v Vector) Add(w Vector) Vector {
	for i := range v {
		v[i] = add(v[i], w[i])
	}
	return v
}

// Sub is v - w; below zero means overcommitted.
func (v Vector) Sub(w Vector) Vector {
	for i := range v {
		v[i] = sub(v[i], w[i])
	}
	return v
}

// Scale is v times n.
func (v Vector) Scale(n int64) Vector {
	for i := range v {
		v[i] = mul(v[i], n)
	}
	return v
}

// Lacking is the first index at which v exceeds w, or -1 if v fits.
func (v Vector) Lacking(w Vector) int {
	for i := range v {
		if v[i] > w[i] {
			return i
		}
	}
	return -1
}

// IsZero reports whether every element is zero.
func (v Vector) IsZero() bool { return v == Vector{} }

// Min is the smaller of both, by element.
func (v Vector) Min(w Vector) Vector {
	for i := range v {
		v[i] = min(v[i], w[i])
	}
	return v
}

// Max is the larger of both, by element.
func (v Vector) Max(w Vector) Vector {
	for i := range v {
		v[i] = max(v[i], w[i])
	}
	return v
}

// Percent is v times percent / 100, rounded down.
func (v Vector) Percent(percent float64) Vector {
	for i := range v {
		product := float64(v[i]) * percent / 100
		switch {
		case product >= math.MaxInt64:
			v[i] = math.MaxInt64
		default:
			v[i] = int64(product)
		}
	}
	return v
}

// Unlimited is more than any node has of everything.
func Unlimited() Vector {
	var v Vector
	for i := range v {
		v[i] = math.MaxInt64
	}
	return v
}

func add(a, b int64) int64 {
	sum := a + b
	switch {
	case b > 0 && sum < a:
		return math.MaxInt64
	case b < 0 && sum > a:
		return math.MinInt64
	}
	return sum
}

func sub(a, b int64) int64 {
	difference := a - b
	switch {
	case b < 0 && difference < a:
		return math.MaxInt64
	case b > 0 && difference > a:
		return math.MinInt64
	}
	return difference
}

func mul(a, b int64) int64 {
	if a == 0 || b == 0 {
		return 0
	}
	product := a * b
	// The last is the one product that wraps onto itself.
	if product/b != a || b == -1 && a == math.MinInt64 {
		if (a < 0) != (b < 0) {
			return math.MinInt64
		}
		return math.MaxInt64
	}
	return product
}

// Schema is the names of the indexes from Extended on. The zero Schema has none. It is a value: With returns a new one.
type Schema struct {
	names [Size - Extended]string
}

// Index is the index of a named resource.
func (s Schema) Index(name string) (int, bool) {
	for i, known := range s.names {
		if known == name && name != "" {
			return Extended + i, true
		}
	}
	return 0, false
}

// With returns a schema that also has name, and its index. It is false if all indexes are taken.
func (s Schema) With(name string) (Schema, int, bool) {
	if index, ok := s.Index(name); ok {
		return s, index, true
	}
	for i, known := range s.names {
		if known == "" {
			s.names[i] = name
			return s, Extended + i, true
		}
	}
	return s, 0, false
}

// Name is the name of an index.
func (s Schema) Name(index int) string {
	switch index {
	case CPU:
		return "cpu"
	case Memory:
		return "memory"
	case Disk:
		return "disk"
	case Ports:
		return "ports"
	}
	if index >= Extended && index < Size {
		return s.names[index-Extended]
	}
	return ""
}

// Names lists the named resources in the order of their indexes.
func (s Schema) Names() []string {
	var names []string
	for _, name := range s.names {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Format formats a quantity of an index for people.
func (s Schema) Format(index int, amount int64) string {
	switch index {
	case CPU:
		return FormatCPU(amount)
	case Memory, Disk:
		return FormatBytes(amount)
	}
	return formatInt(amount)
}
