package nodemanager

import (
	"context"
	"maps"
	"net/url"

	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/nodemanager/node"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// StateDirs are the state directories that a node's process runtime has for companion apps: a directory, and the processes that
// one container has left running for the next. They are named APP, or ROLE.APP.
type StateDirs interface {
	StateDirs() ([]string, error)
	// RemoveStateDir ends the processes and deletes the directory. It fails with ErrFailedPrecondition while a container
	// uses it.
	RemoveStateDir(ctx context.Context, dir string) error
}

// These variables are set for programs of companion apps. A master gets the first one too; instances of other apps get neither.
const (
	envResourceManager = "MAMMOTH_RESOURCEMANAGER"
	envNode            = "MAMMOTH_NODE"
)

// stateDir is the state directory of a companion app's container; empty for any other.
func stateDir(h *node.Entry) string {
	if !h.Lease.GetCompanion() || h.Lease.GetMaster() || h.Spec.GetRuntime() != corev1.ContainerSpec_PROCESS {
		return ""
	}
	return spec.RoleName(h.Lease.GetAppName(), h.Lease.GetRole())
}

// environment is the container's environment, with the addresses of the zone for a companion app's program. A ResourceManager
// that listens on all addresses does not know by which of them a node reaches it, so the node adds the host.
func (o *owner) environment(h *node.Entry) map[string]string {
	env := maps.Clone(h.Spec.GetEnv())
	if env == nil {
		env = map[string]string{}
	}
	if where, err := url.Parse(env[envRegistry]); err == nil && env[envRegistry] != "" && where.Host == "" {
		where.Host = credentials.FirstAddress(o.nm.config.ResourceManager)
		env[envRegistry] = where.String()
	}
	if h.Lease.GetMaster() && env[envResourceManager] == "" {
		env[envResourceManager] = o.nm.config.ResourceManager
	}
	if stateDir(h) != "" {
		env[envResourceManager], env[envNode] = o.nm.config.ResourceManager, o.nm.config.NodeID
	}
	return env
}

// stateDirs are the state directories of this node.
func (nm *NodeManager) stateDirs() []string {
	if nm.config.StateDirs == nil {
		return nil
	}
	dirs, err := nm.config.StateDirs.StateDirs()
	if err != nil {
		nm.log.Error("cannot list the state directories of companion apps", "node", nm.config.NodeID, "error", err)
	}
	return dirs
}

// removeStateDir tries to remove a state directory at once, and again whenever a container ends: one of which the ResourceManager does not
// know may still use it. It gives up when a new container is accepted that will use it.
func (o *owner) removeStateDir(dir string) {
	nm := o.nm
	if nm.config.StateDirs == nil {
		return
	}
	o.removing[dir] = struct{}{}
	nm.goroutines.Go(func() {
		ctx, cancel := context.WithTimeout(nm.edges, cleanTimeout)
		defer cancel()
		err := nm.config.StateDirs.RemoveStateDir(ctx, dir)
		switch {
		case err == nil:
			nm.inbox.put(func(o *owner) { delete(o.removing, dir) })
		case nm.edges.Err() == nil:
			nm.log.Warn("cannot remove the state directory of a companion app", "dir", dir, "node", nm.config.NodeID, "error", err)
		}
	})
}

// retryRemovals tries again to remove state directories; a container has ended.
func (o *owner) retryRemovals() {
	for dir := range o.removing {
		o.removeStateDir(dir)
	}
}
