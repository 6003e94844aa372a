package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
)

// errand is a trial for which this program starts itself again: it finds it in its environment, makes the workload of
// that shape anew and answers on its standard output with the outcome.
type errand struct {
	Contender         string
	Nodes, Apps, Asks int
}

const errandVariable = "PEERS_ERRAND"

// tryApart measures in a process of its own: its clocks start there, when all is prepared.
func tryApart(c contender, w workload) (outcome, error) {
	program, err := os.Executable()
	if err != nil {
		return outcome{}, err
	}
	text, err := json.Marshal(errand{Contender: c.name(), Nodes: w.nodes, Apps: w.apps, Asks: w.asks})
	if err != nil {
		return outcome{}, err
	}
	var said, complained bytes.Buffer
	child := exec.Command(program)
	child.Env = append(os.Environ(), errandVariable+"="+string(text))
	child.Stdout, child.Stderr = &said, &complained
	if err := child.Run(); err != nil {
		return outcome{}, fmt.Errorf("its process: %w\n%s", err, bytes.TrimSpace(complained.Bytes()))
	}
	var o outcome
	if err := json.Unmarshal(said.Bytes(), &o); err != nil {
		return outcome{}, fmt.Errorf("read the outcome from its process: %w", err)
	}
	return o, nil
}

// runErrand does the errand and says what came of it.
func runErrand(text string, out io.Writer) error {
	var e errand
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return fmt.Errorf("%s: %w", errandVariable, err)
	}
	i := slices.IndexFunc(peers, func(p peer) bool { return p.name() == e.Contender })
	if i < 0 {
		return fmt.Errorf("%s: no peer is called %q", errandVariable, e.Contender)
	}
	o, err := tryHere(peers[i], newWorkload(shape{nodes: e.Nodes, apps: e.Apps, asks: e.Asks}))
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(o)
}
