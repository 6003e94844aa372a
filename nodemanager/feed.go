package nodemanager

import (
	"cmp"
	"slices"
	"sync"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// feed is the queue of one watcher: the last status of each container that has changed since it was sent. So its length is bounded,
// however slow the watcher is.
type feed struct {
	// matches decides which containers it is for.
	matches func(*corev1.ContainerStatus) bool
	wake    chan struct{}

	mu      sync.Mutex
	pending map[string]*corev1.ContainerStatus
	node    nodeChange
}

// nodeChange is what has changed about the node itself.
type nodeChange struct {
	health     *corev1.NodeHealth
	attributes map[string]*corev1.Attribute
}

func newFeed(wants func(*corev1.ContainerStatus) bool) *feed {
	return &feed{matches: wants, wake: make(chan struct{}, 1), pending: map[string]*corev1.ContainerStatus{}}
}

func (f *feed) add(status *corev1.ContainerStatus) {
	if !f.matches(status) {
		return
	}
	f.mu.Lock()
	f.pending[status.GetLease().GetContainerId()] = status
	f.mu.Unlock()
	f.notify()
}

func (f *feed) addNode(change nodeChange) {
	f.mu.Lock()
	if change.health != nil {
		f.node.health = change.health
	}
	if change.attributes != nil {
		f.node.attributes = change.attributes
	}
	f.mu.Unlock()
	f.notify()
}

func (f *feed) notify() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// take returns what is pending, the oldest change first.
func (f *feed) take() ([]*corev1.ContainerStatus, nodeChange) {
	f.mu.Lock()
	defer f.mu.Unlock()
	node := f.node
	f.node = nodeChange{}
	if len(f.pending) == 0 {
		return nil, node
	}
	statuses := make([]*corev1.ContainerStatus, 0, len(f.pending))
	for _, status := range f.pending {
		statuses = append(statuses, status)
	}
	clear(f.pending)
	slices.SortFunc(statuses, func(a, b *corev1.ContainerStatus) int { return cmp.Compare(a.GetSequence(), b.GetSequence()) })
	return statuses, node
}
