package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mammoth-os/mammoth/internal/id"
)

const (
	// linesEach is how many instances with the same change at the same time have a line each; more share one.
	linesEach = 3
	// mostRuns is how many runs of names such a line has.
	mostRuns = 8
	// manyInstances is the number of instances from which changes are delayed by holdChanges, so that successive ones share
	// a line.
	manyInstances = 10
	holdChanges   = time.Second
)

// instanceChange is the new state of an instance.
type instanceChange struct {
	name, node string
	// state and why may be the same for many; line is its own.
	state, why, line string
}

// changedInstances are the changed instances that were not printed yet, in their order. Its lock also guards the writer.
type changedInstances struct {
	sync.Mutex
	all []instanceChange
	// at is the index in all of an instance's change.
	at map[string]int
	// held prints them later.
	held *time.Timer
}

// add adds a change; it replaces an earlier one of the same instance.
func (c *changedInstances) add(change instanceChange) {
	if c.at == nil {
		c.at = map[string]int{}
	}
	if i, ok := c.at[change.name]; ok {
		c.all[i] = instanceChange{} // without a name it is ignored
	}
	c.at[change.name] = len(c.all)
	c.all = append(c.all, change)
}

// print writes the changes of an app with so many instances, at once or within holdChanges.
func (c *changedInstances) print(out io.Writer, instances int) {
	switch {
	case len(c.all) == 0 || c.held != nil:
	case max(instances, len(c.at)) < manyInstances:
		c.flush(out)
	default:
		c.held = time.AfterFunc(holdChanges, func() {
			c.Lock()
			defer c.Unlock()
			c.flush(out)
		})
	}
}

// flush writes the delayed changes.
func (c *changedInstances) flush(out io.Writer) {
	if c.held != nil {
		c.held.Stop()
		c.held = nil
	}
	type how struct{ state, why string }
	groups := map[how][]instanceChange{}
	var order []how
	for _, change := range c.all {
		if change.name == "" {
			continue
		}
		key := how{change.state, change.why}
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], change)
	}
	c.all, c.at = nil, nil
	for _, key := range order {
		group := groups[key]
		if len(group) <= linesEach {
			for _, change := range group {
				fmt.Fprintln(out, change.line)
			}
			continue
		}
		slices.SortFunc(group, func(x, y instanceChange) int { return id.CompareNames(x.name, y.name) })
		line := runsOf(group) + ": " + key.state + nodesOf(group)
		if key.why != "" {
			line += ", " + key.why
		}
		fmt.Fprintln(out, line)
	}
}

// nodesOf is the node or number of nodes of a group: " on node-1", " on 3 nodes", or nothing if a part of it has none.
func nodesOf(group []instanceChange) string {
	nodes := map[string]bool{}
	for _, change := range group {
		nodes[change.node] = true
	}
	switch {
	case nodes[""]:
		return ""
	case len(nodes) == 1:
		return " on " + group[0].node
	}
	return " on " + plural(len(nodes), "node")
}

// runsOf shortens names with numbers in a row: "web-4 … web-50, web-60".
func runsOf(group []instanceChange) string {
	var names []string
	for _, change := range group {
		names = append(names, change.name)
	}
	var runs []string
	left := 0
	for i := 0; i < len(names); {
		j := i + 1
		for j < len(names) && follows(names[j-1], names[j]) {
			j++
		}
		switch {
		case len(runs) == mostRuns:
			left += j - i
		case j-i > 2:
			runs = append(runs, names[i]+" … "+names[j-1])
		default:
			runs = append(runs, strings.Join(names[i:j], ", "))
		}
		i = j
	}
	text := strings.Join(runs, ", ")
	if left > 0 {
		text += fmt.Sprintf(" and %d more", left)
	}
	return text
}

// follows reports whether a name is another with the next number.
func follows(before, name string) bool {
	i, j := strings.LastIndexByte(before, '-')+1, strings.LastIndexByte(name, '-')+1
	x, errX := strconv.Atoi(before[i:])
	y, errY := strconv.Atoi(name[j:])
	return before[:i] == name[:j] && errX == nil && errY == nil && y == x+1
}
