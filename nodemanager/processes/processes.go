// Package processes finds and ends what a command inside a container has started. The kernel has no name for that: a command that is
// run beside a container's own program is in the same control group, and what it leaves behind becomes a child of the container's
// first process. It is known by a mark in its environment, which children inherit, and by its session.
package processes

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Variable is what marks a command in its environment.
const Variable = "MAMMOTH_EXEC"

// Command is a command and all that it has started.
type Command struct {
	// Mark is the value of Variable, not used by any other command.
	Mark string
	// Session is the command's own number, if it is known, since a command leads a session.
	Session int
	// Belongs says whether a process is in the command's container: the number of a session may be another one's by now. Nil has
	// only the mark count.
	Belongs func(pid int) bool
}

// New is a command with a mark of its own.
func New() Command { return Command{Mark: rand.Text()} }

// Environment is the mark as KEY=VALUE.
func (c Command) Environment() string { return Variable + "=" + c.Mark }

// process is one that was found.
type process struct {
	pid, session int
}

// find gives what is there of the command. It looks at every process of the machine.
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
		if alive && (c.marked(pid) || c.Session > 1 && session == c.Session && c.Belongs != nil && c.Belongs(pid)) {
			found = append(found, process{pid, session})
		}
	}
	return found, nil
}

func (c Command) marked(pid int) bool {
	environ, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return err == nil && bytes.Contains(append([]byte{0}, environ...), []byte("\x00"+c.Environment()+"\x00"))
}

// sessionOf reads the session of a process that is not dead already.
func sessionOf(pid int) (session int, alive bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	// The second field, the name, is in parentheses and may hold anything; behind it come state, parent, group, session.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 4 || fields[0] == "Z" || fields[0] == "X" {
		return 0, false
	}
	session, err = strconv.Atoi(fields[3])
	return session, err == nil
}

// Kill kills the command with all that it has started, and returns when none of it is left.
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
			return fmt.Errorf("%d processes of a command are still there: %w", len(found), context.Cause(ctx))
		case <-timer.C:
		}
	}
}

// kill kills a process that was found, unless its number is another one's by now: the descriptor keeps it from becoming that.
func (c Command) kill(of process) error {
	pidfd, err := unix.PidfdOpen(of.pid, 0)
	if err != nil {
		return nil // it has ended
	}
	defer func() { _ = unix.Close(pidfd) }()
	if session, alive := sessionOf(of.pid); !alive || session != of.session && !c.marked(of.pid) {
		return nil
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", of.pid, err)
	}
	return nil
}

// Orphaned reports that there is something of the command, and that the command itself has ended.
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

// Await returns true when a process has ended, and false when ctx has before.
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
