package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mammoth-os/mammoth/internal/testenv"
)

// binary is the folder with the program under test.
var binary string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

// buildAndRun builds the program as it is shipped, and the example app, so that the scripts run the real thing.
func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "mammoth-script-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for program, source := range map[string]string{
		"mammoth": ".", "hello": "../../examples/hello", "batch": "../../examples/batch", "framework": "../../examples/framework",
	} {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, program), ".")
		build.Dir = source // a third party's is a module of its own
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n", program, err)
			return 1
		}
	}
	// The scripts of several users run it as somebody else.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binary = dir
	return m.Run()
}

// The scripts read as a session at a shell.
func TestScripts(t *testing.T) { runScripts(t, "testdata/script") }

// These scripts run the program as several users, as only root can.
func TestScriptsOfSeveralUsers(t *testing.T) {
	testenv.Need(t, "root", "program:curl")
	runScripts(t, "testdata/users")
}

func runScripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", binary+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("TZ", "UTC")
			env.Setenv("HELLO", filepath.Join(binary, "hello"))
			env.Setenv("BATCH", filepath.Join(binary, "batch"))
			env.Setenv("FRAMEWORK", filepath.Join(binary, "framework"))
			examples, err := filepath.Abs("../../examples")
			if err != nil {
				return err
			}
			env.Setenv("EXAMPLES", examples)
			env.Values[daemonsKey{}] = daemons{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"as":         scriptAs,
			"code":       scriptCode,
			"free":       scriptFree,
			"like":       scriptLike,
			"start":      scriptStart,
			"interrupt":  scriptEnd(os.Interrupt),
			"crash":      scriptEnd(os.Kill),
			"eventually": scriptEventually,
		},
	})
}

// scriptCode runs a program and requires its exit code: code 2 mammoth app.
func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code CODE PROGRAM [ARGUMENT...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// scriptFree puts an address that nobody else takes into a variable: free FRONT.
func scriptFree(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: free VARIABLE")
	}
	address, err := testenv.FreeAddress()
	ts.Check(err)
	ts.Setenv(args[0], address)
}

// scriptAs runs a program as another user, named by number, and requires its exit code: as 2001 0 mammoth app ls.
func scriptAs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: as UID CODE PROGRAM [ARGUMENT...]")
	}
	uid, err := strconv.ParseUint(args[0], 10, 32)
	ts.Check(err)
	name := args[2]
	if name == "mammoth" {
		name = filepath.Join(binary, name)
	}
	program := exec.Command(name, args[3:]...)
	program.Dir = "/" // a script's own folder is its own
	program.Env = []string{"MAMMOTH_SERVER=" + ts.Getenv("MAMMOTH_SERVER"), "TZ=UTC"}
	program.Stdout, program.Stderr = ts.Stdout(), ts.Stderr()
	program.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	var exit *exec.ExitError
	if err := program.Run(); err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	if got := strconv.Itoa(program.ProcessState.ExitCode()); got != args[1] {
		ts.Fatalf("exit code %s, want %s", got, args[1])
	}
}

// placeholders are the words in a script's table for what differs from run to run.
var placeholders = strings.NewReplacer(
	"<age>", `[0-9][0-9.]*(ms|s|m|h|d)`, "<app>", `application_[0-9]+_[0-9]{4}`, "<container>", `container_e[0-9]+_[0-9_]+`,
	"<cpu>", `[0-9.]+`, "<digest>", "[0-9a-f]{12}", "<n>", "[0-9]+", "<port>", "[0-9]+", "<size>", `[0-9.]+[KMG]?i?B`, "<text>", ".+",
	"<time>", "[-0-9T :.]+Z?", "<user>", `\S+`,
)

// scriptLike compares what the last program wrote with a file: like FILE. In the file, columns need not have the widths of the
// output, and words such as <age> stand for what differs; <lines> is any number of lines. The columns of the output must stand
// below each other.
func scriptLike(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: like FILE")
	}
	got, pattern := ts.ReadFile("stdout"), "^"
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		if line == "<lines>\n" {
			pattern += `(?:.*\n)*`
			continue
		}
		pattern += line[:len(line)-len(strings.TrimLeft(line, " "))]
		cells := strings.Fields(regexp.QuoteMeta(line))
		for i, cell := range cells {
			cells[i] = placeholders.Replace(cell)
		}
		pattern += strings.Join(cells, " +") + " *\n"
	}
	if !regexp.MustCompile(pattern + "$").MatchString(got) {
		ts.Fatalf("the output is not like %s:\n%s", args[0], got)
	}
	checkColumns(ts, got)
}

var headline = regexp.MustCompile(`^[A-Z]+(  +[A-Z]+( [A-Z]+)*)+$`)

// checkColumns requires of each table that its cells stand below their headings.
func checkColumns(ts *testscript.TestScript, text string) {
	var columns []int
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		switch {
		case headline.MatchString(line):
			columns = nil
			for _, gap := range regexp.MustCompile("  +").FindAllStringIndex(line, -1) {
				columns = append(columns, gap[1])
			}
		case !strings.Contains(line, "  "): // the table is over
			columns = nil
		}
		for _, column := range columns {
			if column < len(line) && line[column-2:column] != "  " {
				ts.Fatalf("a cell does not stand below its heading, at %d: %s", column, line)
			}
		}
	}
}
