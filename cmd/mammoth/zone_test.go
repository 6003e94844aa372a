package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// daemons are the ones that a script has started, by the name that it gave them.
type daemons map[string]*daemon

// daemonsKey is where a script keeps them.
type daemonsKey struct{}

type daemon struct {
	process *exec.Cmd
	// output is what it writes to its standard output, errors what it writes to its standard error.
	output, errors *output
	read           sync.WaitGroup
	// ended is closed when the daemon writes no more.
	ended chan struct{}
}

// output is what a process has written so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newOutput() *output { return &output{more: make(chan struct{})} }

// Write implements io.Writer.
func (s *output) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(text)
	close(s.more)
	s.more = make(chan struct{})
	return len(text), nil
}

func (s *output) now() (string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String(), s.more
}

var listensAt = regexp.MustCompile(`listens at ([0-9.:]+)`)

// scriptStart runs a daemon in the background and waits until it says where it listens: start NAME ARGUMENT... The
// program is pointed at it unless it is a NodeManager. It listens at any free port unless told otherwise.
func scriptStart(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME ARGUMENT...")
	}
	name, args := args[0], args[1:]
	if !slices.Contains(args, "--listen") {
		args = append(args, "--listen", "127.0.0.1:0")
	}
	d := &daemon{output: newOutput(), errors: newOutput(), ended: make(chan struct{})}
	d.process = exec.Command(binary+"/mammoth", args...)
	d.process.Dir = ts.MkAbs(".")
	d.process.Stderr = d.errors // the script's own is only there while a command runs
	stdout, err := d.process.StdoutPipe()
	ts.Check(err)
	ts.Check(d.process.Start())
	d.read.Go(func() {
		defer close(d.ended)
		lines := bufio.NewReader(stdout)
		for {
			line, err := lines.ReadString('\n')
			_, _ = d.output.Write([]byte(line))
			if err != nil {
				return
			}
		}
	})
	ts.Setenv(strings.ToUpper(name)+"_PID", strconv.Itoa(d.process.Process.Pid))
	all := ts.Value(daemonsKey{}).(daemons)
	all[name] = d
	ts.Defer(func() {
		if all[name] == d {
			_ = d.process.Process.Signal(os.Interrupt)
			d.read.Wait()
			_ = d.process.Wait()
			text, _ := d.errors.now()
			ts.Logf("%s wrote to its standard error:\n%s", name, text)
		}
	})
	deadline := time.After(time.Minute)
	for {
		text, more := d.output.now()
		if found := listensAt.FindStringSubmatch(text); found != nil {
			if args[0] != "nodemanager" && args[0] != "companion" {
				ts.Setenv("MAMMOTH_SERVER", found[1])
			}
			return
		}
		select {
		case <-more:
		case <-d.ended:
			ts.Fatalf("%s ended: %s", name, text)
		case <-deadline:
			ts.Fatalf("%s was not ready within a minute: %s", name, text)
		}
	}
}

// scriptEnd gives a daemon a signal and waits for its end; what it wrote becomes the output: interrupt NAME.
func scriptEnd(signal os.Signal) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		all := ts.Value(daemonsKey{}).(daemons)
		if neg || len(args) != 1 || all[args[0]] == nil {
			ts.Fatalf("usage: interrupt|crash NAME")
		}
		d := all[args[0]]
		delete(all, args[0])
		ts.Check(d.process.Process.Signal(signal))
		d.read.Wait()
		err := d.process.Wait()
		text, _ := d.output.now()
		_, _ = io.WriteString(ts.Stdout(), text)
		if err != nil && signal == os.Interrupt {
			ts.Fatalf("%s: %v\n%s", args[0], err, text)
		}
	}
}

// scriptEventually runs a program again and again until it succeeds and writes what matches: eventually REGEXP
// PROGRAM ARGUMENT... A minute without it fails the script.
func scriptEventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually REGEXP PROGRAM [ARGUMENT...]")
	}
	want := regexp.MustCompile("(?m)" + args[0])
	deadline := time.Now().Add(time.Minute)
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for time.Now().Before(deadline) {
		program := exec.Command(binary+"/"+args[1], args[2:]...)
		program.Dir = ts.MkAbs(".")
		program.Env = append(os.Environ(), "MAMMOTH_SERVER="+ts.Getenv("MAMMOTH_SERVER"))
		if out, err := program.Output(); err == nil && want.Match(out) {
			_, _ = ts.Stdout().Write(out)
			return
		}
		<-look.C
	}
	ts.Fatalf("no %q within a minute", args[0])
}
