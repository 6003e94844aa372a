package haproxy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/companions/balancer"
	"github.com/mammoth-os/mammoth/internal/sockets"
)

// closing are the old processes that may still accept connections, each with the sockets that it has yet to close. What is applied
// holds only once there are none.
type closing map[int]map[string]bool

// supersede notes that processes are old: they are to accept nothing from now on.
func (p *Proxy) supersede(pids ...int) error {
	for _, pid := range pids {
		accepting, err := listening(pid)
		if err != nil {
			return err
		}
		p.closing[pid] = accepting
		if !slices.Contains(p.before, pid) {
			p.before = append(p.before, pid)
		}
	}
	return nil
}

// closed reports whether only the newest process accepts connections.
func (p *Proxy) closed() bool {
	for pid, accepting := range p.closing {
		if !p.isOurs(pid) || !holds(pid, accepting) {
			delete(p.closing, pid)
		}
	}
	return len(p.closing) == 0
}

// endClosing has old processes accept nothing any more, if a reload was cut off before they had closed their sockets, and takes over
// the newest process.
func (p *Proxy) endClosing(ctx context.Context) error {
	if newest := p.process(); newest != 0 && newest != p.pid {
		if err := p.supersede(p.pid); err != nil {
			return err
		}
		p.pid = newest
	}
	if p.closed() {
		return nil
	}
	for pid := range p.closing {
		_ = syscall.Kill(pid, syscall.SIGUSR1) // stop accepting, and end with the last connection
	}
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	for ctx.Err() == nil {
		balancer.Pause(ctx, 5*time.Millisecond)
		if p.closed() {
			return nil
		}
	}
	return fmt.Errorf("an old process of HAProxy goes on accepting requests: %w", errdefs.ErrUnavailable)
}

// old lists the old processes: those that only finish their connections, and those that are closing.
func (p *Proxy) old() []int {
	p.before = slices.DeleteFunc(p.before, func(pid int) bool { return pid == p.pid || !p.isOurs(pid) })
	return slices.Clone(p.before)
}

// limitOld ends the oldest old processes if a reload would leave too many.
func (p *Proxy) limitOld() {
	most := balancer.MaxOldFor(p.config.MaxOld, p.pid)
	if ended := balancer.EndOldest(p.old(), most-1); ended > 0 {
		p.config.Log.Warn("too many old processes have open connections; the oldest are ended",
			"balancer", p.config.Name, "ended", ended, "most", most)
	}
}

// listening lists the sockets on which a process of this network namespace accepts connections, TCP and Unix.
func listening(pid int) (map[string]bool, error) {
	accepting, err := sockets.Listening()
	if err != nil {
		return nil, err
	}
	mine := map[string]bool{}
	for _, link := range open(pid) {
		var inode uint64
		if _, err := fmt.Sscanf(link, "socket:[%d]", &inode); err == nil && accepting[inode] {
			mine[link] = true
		}
	}
	return mine, nil
}

// holds reports whether a process has one of the sockets open.
func holds(pid int, links map[string]bool) bool {
	for _, link := range open(pid) {
		if links[link] {
			return true
		}
	}
	return false
}

func open(pid int) []string {
	folder := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	var links []string
	for _, entry := range entries {
		if link, err := os.Readlink(filepath.Join(folder, entry.Name())); err == nil {
			links = append(links, link)
		}
	}
	return links
}
