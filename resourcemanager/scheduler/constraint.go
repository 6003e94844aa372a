package scheduler

// Constraint is a test of one node attribute.
type Constraint struct {
	Attribute string
	Operator  Operator
	// Values has one entry, several for In, none for Exists.
	Values []Value
}

// Operator compares a node attribute with a constraint's values.
type Operator uint8

// The operators of constraints.
const (
	Equal Operator = iota
	NotEqual
	Less
	Greater
	LessEqual
	GreaterEqual
	In
	Exists
)
