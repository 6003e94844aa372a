package lifecycle

import "fmt"

// Diagram is one state machine as a diagram for the documentation.
type Diagram struct {
	// Name is "app", "attempt", "container" or "node".
	Name string
	// Text is a Mermaid state diagram.
	Text string
}

// Mermaid renders every table, so that the documentation agrees with the program.
func Mermaid() []Diagram {
	return []Diagram{
		{"app", Apps().Mermaid()},
		{"attempt", Attempts().Mermaid()},
		{"container", Containers().Mermaid()},
		{"node", Nodes().Mermaid()},
	}
}

func name[T ~uint8](value T, names ...string) string {
	if int(value) < len(names) {
		return names[value]
	}
	return fmt.Sprintf("%d", value)
}
