package zone

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// shownApp caches the view of an app. An app of 10,000 instances is sent to any number of readers, many times a second while it is
// deployed, and only a few instances differ from one time to the next.
type shownApp struct {
	// view is the present view; nil if the app has changed since it was made.
	view *apiv1.App
	// next is when watchers may be sent the next change; late: they have not been sent the last one.
	next time.Time
	late bool
	// provenAt is when the first instance that its master calls starting will have been healthy for long enough; zero is none.
	provenAt time.Time
	// names are the instances in the order in which they are shown; nil if one was added or has gone.
	names     []string
	instances map[string]shownInstance
}

// shownInstance is one instance's part of a view, which many views share.
type shownInstance struct {
	from instanceFacts
	view *apiv1.Instance
}

// instanceFacts are all that an instance's part of a view is made of. Reports and statuses are replaced, never altered.
type instanceFacts struct {
	report  *masterv1.InstanceReport
	status  *corev1.ContainerStatus
	node    id.Node
	state   lifecycle.NodeState
	address string
	ending  bool
	// waits is what it waits for while it has no container.
	waits string
	// proven: its node has known for long enough that it is healthy.
	proven bool
}

// instancesAMillisecond is about how many instances a millisecond suffices for when a view is made. The time between two changes that
// watchers are sent is at least fifty times the time that a view takes, so that views cost at most 2 % of the loop's time.
const instancesAMillisecond = 2000

// show returns the present view of an app.
func (z *Core) show(a *app) *apiv1.App {
	if a.shown.view == nil {
		a.shown.view = z.makeView(a)
	}
	return a.shown.view
}

// errGone ends the watch of an app that was removed.
var errGone = fmt.Errorf("the app is removed: %w", errdefs.ErrNotFound)

// watch has a stream sent the app's view whenever it changes, and gives the present one.
func (z *Core) watch(name string, stream StreamID) (*apiv1.App, error) {
	a, err := z.apps.named(name)
	if err != nil {
		return nil, err
	}
	a.watchers[stream] = struct{}{}
	z.watching[stream] = a
	return z.show(a), nil
}

func (z *Core) unwatch(stream StreamID) {
	if a := z.watching[stream]; a != nil {
		delete(a.watchers, stream)
		delete(z.watching, stream)
	}
}

// showWatchers sends a changed app to its watchers, and ends their streams once it is removed.
func (z *Core) showWatchers(a *app) {
	if len(a.watchers) == 0 {
		a.shown.late = false
		return
	}
	if a.shown.late = z.now.Before(a.shown.next) && !a.removed; a.shown.late {
		z.wakeBy(a.shown.next)
		return
	}
	a.shown.next = z.now.Add(50 * time.Millisecond * time.Duration(len(a.instances)) / instancesAMillisecond)
	view := z.show(a)
	for _, watcher := range slices.Sorted(maps.Keys(a.watchers)) {
		z.out.Views = append(z.out.Views, ViewSend{watcher, view})
		if a.removed {
			z.out.Ends = append(z.out.Ends, StreamEnd{watcher, errGone})
		}
	}
}

// instanceNames are those of an app's instances, in the order in which they are shown.
func (a *app) instanceNames() []string {
	if a.shown.names == nil || len(a.shown.names) != len(a.instances) {
		a.shown.names = sortedKeys(a.instances)
	}
	return a.shown.names
}

// showInstance makes an instance's part of a view, unless the last one still holds.
func (z *Core) showInstance(a *app, instance *storev1.Instance) *apiv1.Instance {
	facts := instanceFacts{report: instance.GetReport(), ending: a.ending()}
	cid, err := id.ParseContainer(facts.report.GetContainerId())
	if c := a.containers[cid]; err == nil && c != nil {
		facts.status, facts.node = c.record.GetStatus(), c.node
		if n := z.nodes.get(c.node); n != nil {
			facts.state, facts.address = n.state(), n.record.GetAddress()
		}
		if facts.report.GetState() == apiv1.Instance_STARTING {
			facts.proven = z.proven(a, c)
		}
	} else {
		facts.waits = a.wait.byRole[facts.report.GetRole()]
	}
	name := facts.report.GetId()
	last, ok := a.shown.instances[name]
	if ok && last.from == facts {
		return last.view
	}
	if a.shown.instances == nil {
		a.shown.instances = map[string]shownInstance{}
	}
	a.shown.instances[name] = shownInstance{facts, z.viewInstance(a, instance)}
	return a.shown.instances[name].view
}

// instanceListChanged forgets what was shown of an instance that was added or has gone.
func (a *app) instanceListChanged(name string) {
	a.shown.names = nil
	delete(a.shown.instances, name)
}
