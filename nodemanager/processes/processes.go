// Package processes finds and kills the processes that a command inside a container has started. Control groups and parents
// do not identify them: the command is in the control group of its container, and processes that it leaves behind become
// children of the container's first process. So they are found by a variable in their environment, which children inherit,
// and by their session.
//
// It owns no process: a Command is only how those of one command are recognized.
package processes

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Variable is the environment variable that marks the processes of a command.
const Variable = "MAMMOTH_EXEC"

// Command is a command and all processes that it has started.
type Command struct {
	// Mark is the value of Variable, unique to the command.
	Mark string
	// Session is the process id of the command, which is also its session; zero if unknown.
	Session int
	// Belongs reports whether a process is in the command's container, since the session's number may have been reused. If
	// it is nil, only the mark counts.
	Belongs func(pid int) bool
}

// New returns a command with a new mark.
func New() Command { return Command{Mark: rand.Text()} }

// Environment is the mark as KEY=VALUE.
func (c Command) Environment() string { return Variable + "=" + c.Mark }

// process is a process that was found.
type process struct {
	pid, session int
}

// find lists the live processes of the command. It examines every process of the machine.
func (c Command) find() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for the processes of a command: %w", err)
	}
	var found []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		session, alive := sessionOf(pid)
		if alive && (c.marked(pid, session) || c.Session > 1 && session == c.Session && c.Belongs != nil && c.Belongs(pid)) {
			found = append(found, process{pid, session})
		}
	}
	return found, nil
}

// marked reports whether a process has the mark. The environment of a process during exec cannot be read for a moment, which is
// long on a busy machine, and is examined again.
func (c Command) marked(pid, session int) bool {
	for waited := time.Duration(0); ; waited += again {
		environ, err := environOf(pid)
		switch {
		case err == nil && len(environ) > 0:
			return bytes.Contains(append([]byte{0}, environ...), []byte("\x00"+c.Environment()+"\x00"))
		case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
			return false // it is another user's
		case waited >= longestExec, session == 0, hasNoEnvironment(pid):
			return false
		}
		time.Sleep(again)
	}
}

const (
	// again is how soon a process during exec is examined again.
	again = 100 * time.Microsecond
	// longestExec is how long an exec may take; without a limit, one that the kernel delays would delay all others.
	longestExec = 2 * time.Second
)

// environOf reads a process's environment at once: one that is read in pieces ends early if the program is replaced in between.
func environOf(pid int) ([]byte, error) {
	for size := 64 << 10; ; size *= 4 {
		file, err := os.Open("/proc/" + strconv.Itoa(pid) + "/environ")
		if err != nil {
			return nil, err
		}
		environ := make([]byte, size)
		n, err := file.Read(environ)
		_ = file.Close() // it was only read
		switch {
		case errors.Is(err, io.EOF):
			return nil, nil
		case err != nil:
			return nil, err
		case n < size:
			return environ[:n], nil
		}
	}
}

// hasNoEnvironment reports whether a process is dead, or its environment is known to be empty. During exec the kernel does not know
// where the environment is, or thinks for a moment that it is empty; it knows where the code ends after that.
// Kernel threads, which never have an environment, are in no session.
func hasNoEnvironment(pid int) bool {
	fields := statOf(pid)
	if len(fields) <= environEnd || !alive(fields) {
		return true
	}
	return fields[codeEnd] != "0" && fields[environStart] == fields[environEnd]
}

// These are the fields of /proc/PID/stat, counted from behind the name.
const (
	state        = 0
	ofSession    = 3
	codeEnd      = 24
	environStart = 47
	environEnd   = 48
)

// statOf reads the fields of a process behind its name, which is in parentheses and may contain anything; none if there is no
// such process.
func statOf(pid int) []string {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
}

// alive reports whether the process with these fields is alive.
func alive(fields []string) bool {
	return len(fields) > ofSession && fields[state] != "Z" && fields[state] != "X"
}

// sessionOf returns the session of a process, and whether it is alive.
func sessionOf(pid int) (session int, runs bool) {
	fields := statOf(pid)
	if !alive(fields) {
		return 0, false
	}
	session, err := strconv.Atoi(fields[ofSession])
	return session, err == nil
}

// Kill kills all processes of the command, and returns when none is left.
func (c Command) Kill(ctx context.Context) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		found, err := c.find()
		if err != nil || len(found) == 0 {
			return err
		}
		for _, one := range found {
			err = errors.Join(err, c.kill(one))
		}
		if err != nil {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%d processes of a command are still running: %w", len(found), context.Cause(ctx))
		case <-timer.C:
		}
	}
}

// kill kills a process, unless its process id was reused; the pidfd ensures that.
func (c Command) kill(of process) error {
	pidfd, err := unix.PidfdOpen(of.pid, 0)
	if err != nil {
		return nil // it has ended
	}
	defer func() { _ = unix.Close(pidfd) }()
	if session, alive := sessionOf(of.pid); !alive || session != of.session && !c.marked(of.pid, session) {
		return nil
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", of.pid, err)
	}
	return nil
}

// Orphaned reports whether the command has ended and processes of it are left.
func (c Command) Orphaned() bool {
	found, err := c.find()
	if err != nil || len(found) == 0 {
		return false
	}
	for _, one := range found {
		if _, alive := sessionOf(one.session); alive {
			return false
		}
	}
	return true
}

// Await waits for the end of a process and returns true, or returns false if ctx ends first.
func Await(ctx context.Context, pid int) bool {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	defer func() { _ = pidfd.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = pidfd.Close() })
	defer stop()
	conn, err := pidfd.SyscallConn()
	if err != nil {
		return false
	}
	return conn.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		return err == nil && n > 0
	}) == nil
}
