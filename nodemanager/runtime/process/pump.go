package process

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/nodemanager/logs"
)

// pump moves a container's output from its spools to its log.
type pump struct {
	c      *container
	spools [2]*logs.Spool
	// inotify reports writes to a spool.
	inotify *os.File
	// last ends run, with true after moving everything; done is closed when run has returned.
	last chan bool
	done chan struct{}
}

// gap is the shortest time between two reads of the spools of a container that prints without pause.
const gap = 5 * time.Millisecond

func openPump(c *container) (*pump, error) {
	p := &pump{c: c, last: make(chan bool, 1), done: make(chan struct{})}
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	p.inotify = os.NewFile(uintptr(fd), "inotify")
	for i := range p.spools {
		if p.spools[i], err = logs.OpenSpool(c.spool(i == 1), i == 1); err != nil {
			return nil, errors.Join(err, p.close())
		}
		if _, err := unix.InotifyAddWatch(fd, c.spool(i == 1), unix.IN_MODIFY); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	return p, nil
}

func (p *pump) close() error {
	err := p.inotify.Close()
	for _, spool := range p.spools {
		if spool != nil {
			err = errors.Join(err, spool.Close())
		}
	}
	return err
}

func (p *pump) run() {
	defer close(p.done)
	pause := time.NewTimer(gap)
	defer pause.Stop()
	events := make([]byte, 4096)
	for {
		p.transfer(false)
		if _, err := p.inotify.Read(events); err != nil {
			break // stop has closed it
		}
		pause.Reset(gap)
		<-pause.C
	}
	if <-p.last {
		p.transfer(true)
	}
	for _, spool := range p.spools {
		_ = spool.Close()
	}
}

// stop ends the pump and waits for it; with last it moves all that is left first.
func (p *pump) stop(last bool) {
	p.last <- last
	_ = p.inotify.Close()
	<-p.done
}

func (p *pump) transfer(last bool) {
	for _, spool := range p.spools {
		if err := spool.Transfer(p.c.log, time.Now(), last); err != nil {
			p.c.runtime.config.Logger.Warn("cannot store output", "container", p.c.id.String(), "error", err)
		}
	}
}
