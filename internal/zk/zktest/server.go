// Package zktest runs a real ZooKeeper server for tests, and a network line to it that can be cut.
package zktest

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/mammoth-os/mammoth/internal/testenv"
)

// home is the folder of Debian's package zookeeper.
const home = "/usr/share/zookeeper/bin"

// Server is a ZooKeeper with its own folder and port. It ends with the test.
type Server struct {
	// host:port of its clients.
	Address string
	t       testing.TB
	dir     string
	command *exec.Cmd

	mu sync.Mutex
	// conn is what watches are made over; nil before the first, and while the server is stopped.
	conn *zk.Conn
}

// Start starts a server and returns when it answers.
func Start(t testing.TB) *Server {
	t.Helper()
	testenv.Need(t, "program:java", "program:"+filepath.Join(home, "zkServer.sh"))
	port := testenv.Port(t)
	s := &Server{Address: fmt.Sprintf("127.0.0.1:%d", port), t: t, dir: t.TempDir()}
	config := fmt.Sprintf("tickTime=100\nminSessionTimeout=200\nmaxSessionTimeout=60000\ndataDir=%s/data\nclientPort=%d\nclientPortAddress=127.0.0.1\n"+
		"admin.enableServer=false\nmaxClientCnxns=0\n4lw.commands.whitelist=ruok\n", s.dir, port)
	if err := os.WriteFile(filepath.Join(s.dir, "zoo.cfg"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	s.Restart()
	return s
}

// Restart starts the server with its earlier data.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	command := exec.Command("java", "-Xmx256m", "-Dzookeeper.log.dir="+s.dir, "-Dzookeeper.forceSync=no",
		"-cp", "/usr/share/java/zookeeper.jar", "org.apache.zookeeper.server.quorum.QuorumPeerMain", filepath.Join(s.dir, "zoo.cfg"))
	output, err := os.Create(filepath.Join(s.dir, "output"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer output.Close()
	command.Stdout, command.Stderr = output, output
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.command = command
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for !s.answers() {
		if ctx.Err() != nil {
			text, _ := os.ReadFile(output.Name())
			s.t.Fatalf("ZooKeeper does not answer:\n%s", text)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// Stop ends the server at once. Watches go on once it is there again.
func (s *Server) Stop() {
	if s.command == nil {
		return
	}
	s.disconnect()
	_ = s.command.Process.Kill()
	_ = s.command.Wait()
	s.command = nil
}

func (s *Server) answers() bool {
	conn, err := net.DialTimeout("tcp", s.Address, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = io.WriteString(conn, "ruok")
	answer, _ := io.ReadAll(conn)
	return string(answer) == "imok"
}

// Command runs one command of ZooKeeper's own client and returns what it printed.
func (s *Server) Command(arguments ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, filepath.Join(home, "zkCli.sh"), append([]string{"-server", s.Address}, arguments...)...)
	command.Env = append(os.Environ(), "ZOO_LOG_DIR="+s.dir, "CLIENT_JVMFLAGS=-Xmx128m")
	out, err := command.CombinedOutput()
	if err != nil {
		s.t.Fatalf("zkCli.sh %v: %v\n%s", arguments, err, out)
	}
	return string(out)
}

// Line is a connection to a server that can be cut like a broken network.
type Line struct {
	// host:port of this end.
	Address string
	target  string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
	group sync.WaitGroup
}

// NewLine opens a line to a server. It ends with the test.
func NewLine(t testing.TB, target string) *Line {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Line{Address: listener.Addr().String(), target: target, conns: map[net.Conn]bool{}}
	l.group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.group.Go(func() { l.carry(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		l.Break()
		l.group.Wait()
	})
	return l
}

// Cut drops all data without closing connections.
func (l *Line) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
}

// Mend lets new connections through; those that were cut stay broken.
func (l *Line) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
	l.closeAll()
}

// Break closes every connection.
func (l *Line) Break() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeAll()
}

// closeAll closes every connection. Callers hold the lock.
func (l *Line) closeAll() {
	for conn := range l.conns {
		_ = conn.Close()
	}
}

func (l *Line) carry(client net.Conn) {
	defer l.drop(client)
	l.keep(client)
	server, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	defer l.drop(server)
	l.keep(server)
	var both sync.WaitGroup
	both.Go(func() { l.copy(server, client) })
	both.Go(func() { l.copy(client, server) })
	both.Wait()
}

func (l *Line) keep(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[conn] = true
}

func (l *Line) drop(conn net.Conn) {
	_ = conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
}

// copy copies bytes until an end is closed. While the line is cut they are dropped.
func (l *Line) copy(to, from net.Conn) {
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		l.mu.Lock()
		cut := l.cut
		l.mu.Unlock()
		if n > 0 && !cut {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
