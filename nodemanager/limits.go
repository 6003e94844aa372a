package nodemanager

import (
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/mammoth-os/mammoth/internal/admission"
	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/nodemanager/health"
)

// connectionLimits are for masters, with one connection each, and the ResourceManager.
var connectionLimits = admission.Limits{Total: 8192, Others: 4096, PerCaller: 1024}

// limitConnections limits the connections of a listener; nil stays nil.
func (nm *NodeManager) limitConnections(listener net.Listener) net.Listener {
	if listener == nil {
		return nil
	}
	return admission.Listen(listener, admission.Config{
		Limits:  admission.LimitsFor(connectionLimits),
		Trusted: func(who peer.User) bool { return who.Operator },
		Logger:  nm.log.With("node", nm.config.NodeID),
	})
}

// probeLimits leaves half of this process's file descriptors to everything else.
func probeLimits() health.Limits {
	limits := health.Limits{Plain: 256, Exec: 64, Total: 4096}
	if most, err := maxFiles(); err == nil {
		limits.Total = max(2, min(limits.Total, most/2))
	}
	return limits
}

// maxFiles is how many files this process may have open.
func maxFiles() (int, error) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return 0, err
	}
	return int(min(files.Cur, 1<<30)), nil
}

// openFiles is how many it has open. Newer kernels report that without another file being opened.
func openFiles() (int, error) {
	const folder = "/proc/self/fd"
	if info, err := os.Stat(folder); err == nil && info.Size() > 0 {
		return int(info.Size()), nil
	}
	names, err := os.ReadDir(folder)
	return len(names), err
}
