// Package term has a term: the time in which one ResourceManager leads a zone. It is the shell of the package zone, which decides: one
// goroutine, the loop, owns the zone. It drains its inbox, steps the zone through what is in it, commits what the turn has decided
// to the store, and only then tells anybody. Persist, then tell.
//
// A term begins with what is stored and ends with its context or with its store. It never outlives its handle of the store, which
// takes nothing of an earlier term once a later one has begun.
package term

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/eventlog"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/shares"
)

// Config is what a term is begun with. All of it is required but Record.
type Config struct {
	// Settings are those of the zone. Its QueueFile is read and followed.
	Settings zone.Settings
	// EventRetention is how many events are kept.
	EventRetention int64
	// Record is a file to be made, in which everything that the zone is given is recorded; empty is none.
	Record string
	Images service.Images
	// Registry makes the registry that endpoints are published to, whose generations rise with the epoch. What balancers say there
	// is for the observer.
	Registry func(epoch int64, observer Observer) Registry
	// AllowHostNetwork lets apps use their node's network.
	AllowHostNetwork bool
	Metrics          *Metrics
	Logger           *slog.Logger
}

// Registry is where endpoints are published and looked up.
type Registry interface {
	apiv1.RegistryServer
	companionv1.CompanionsServer
	// Publish makes endpoints the whole truth about a service; nil removes it. It gives the generation that holds this
	// truth. It must not block. The endpoints are the registry's afterwards.
	Publish(service string, endpoints []*apiv1.Endpoint) (generation int64)
	// Expose says how balancers reach a service; nil says that they do not. It must not block.
	Expose(service string, expose *apiv1.Expose) (generation int64)
	// AwaitBalancers calls done once every balancer that serves the service has confirmed the generation; if there is
	// none, soon. It must not block, and holds no lock while it calls done.
	AwaitBalancers(service string, generation int64, done func())
	// Until Release, Hold delays changes to companions, which keep what they have, and the calls of AwaitBalancers. Both may be repeated, and
	// must not block.
	Hold()
	Release()
	// ExpectBalancer makes a balancer waited for, for a while, that was connected before.
	ExpectBalancer(name string, within time.Duration)
	// AllowRegistration lets apps register endpoints with keys that the secret signs; AppKey is that of the app of whose id
	// KnowApp has told. An empty id says that no app has the name any more.
	AllowRegistration(secret []byte)
	KnowApp(app, id string)
	AppKey(app string) string
}

// Observer hears what balancers say. Its methods do not block.
type Observer interface {
	// BalancerConnected and BalancerLost tell about a balancer's connection.
	BalancerConnected(balancer string)
	BalancerLost(balancer, why string)
	// Refused says which services a balancer cannot route, and why; nil once it routes all.
	Refused(balancer string, refusals []*companionv1.Refusal)
	// Counted says what a balancer has counted since the last call.
	Counted(balancer string, traffic []*companionv1.Traffic)
}

// Term leads a zone.
type Term struct {
	config Config
	store  store.Store
	zone   *zone.Core
	// publisher and streams perform what turns of the zone decide. past is what everybody reads the zone's events from, shown what
	// everybody lists, looks up and watches.
	publisher *publisher
	streams   *streams
	past      *eventlog.Log
	*shown
	*calls
	// record is nil if the zone is not recorded.
	record *record
	// replies are those of the present turn.
	replies []reply
	// unstored is the turn that the disk has no room for yet, retryAt when it is tried again; nil if the last one is stored.
	unstored *zone.Ready
	retryAt  time.Time
	started  time.Time
	// queueFile is what the queue file was found to say at the start. reread has it looked at again at once.
	queueFile shares.FileText
	reread    chan struct{}
}

// Begin makes a term of what is stored. The store is the term's from then on, unless there is an error.
func Begin(ctx context.Context, config Config, opened store.Store) (*Term, error) {
	t := &Term{
		config: config, store: opened,
		calls: &calls{inbox: newMailbox[task](), looks: newMailbox[task](), stopped: make(chan struct{})}, started: time.Now(),
		reread: make(chan struct{}, 1), streams: newStreams(),
	}
	past, err := readEvents(opened, int(config.EventRetention))
	if err != nil {
		return nil, err
	}
	if config.Settings.QueueFile != "" {
		t.queueFile = readQueueFile(config.Settings.QueueFile)
	}
	core, out, err := t.load(opened)
	if err != nil {
		return nil, err
	}
	t.past, t.shown = past, newShown(opened.Identity().Epoch, t.checkRoom)
	t.zone, t.publisher = core, newPublisher(config.Registry(opened.Identity().Epoch, observer{t}), t.post)
	if err := t.commit(ctx, out); err != nil {
		return nil, err
	}
	if t.unstored == nil {
		t.publish(out)
	} else {
		t.publisher.open(out)
		t.shown.publish(out, t.streams)                      // nobody has asked for what a start decides, and people want to see what there is
		out.Secret, out.Balancers, out.Named = nil, nil, nil // done
	}
	return t, nil
}

// load makes the zone, and records it from here on if it is to be recorded.
func (t *Term) load(opened store.Store) (*zone.Core, *zone.Ready, error) {
	start := zone.Start{Settings: t.config.Settings, Now: t.started, Seed: newSeed(), QueueFile: t.queueFile}
	if t.config.Record == "" {
		return zone.Load(opened, start)
	}
	var err error
	if t.record, err = newRecord(t.config.Record); err != nil {
		return nil, nil, err
	}
	core, out, err := t.record.Load(opened, start)
	if err == nil {
		err = t.record.Err()
	}
	if err != nil {
		return nil, nil, errors.Join(err, t.record.file.Close(), os.Remove(t.config.Record))
	}
	return core, out, nil
}

// Run leads the zone until ctx ends, and closes the store. It returns an error if it cannot go on: the zone and its store may then
// differ, so the next term must be made from the store.
func (t *Term) Run(ctx context.Context) error {
	defer t.store.Close() //nolint:errcheck // every commit is on the disk already
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return t.loop(running) })
	group.Go(func() error { t.followQueueFile(running); return nil })
	group.Go(func() error { t.followRoom(running); return nil })
	return group.Wait()
}

// Identity is that of its store.
func (t *Term) Identity() store.Identity { return t.store.Identity() }

// Ready says why the term cannot be used just now, if so. It asks the loop, so an answer shows that the loop runs.
func (t *Term) Ready(ctx context.Context) error {
	if err := lookOnly(ctx, t.calls, func(*zone.Core) error { return nil }); err != nil {
		return err
	}
	return t.checkRoom()
}

// Services are what it serves.
func (t *Term) Services() service.Config {
	return service.Config{
		Apps: t, Zone: t, Frameworks: t, Lending: t, Tracker: t, Masters: t, Images: t.config.Images, Registry: t.publisher.registry, Companions: t.publisher.registry,
		AllowHostNetwork: t.config.AllowHostNetwork,
	}
}

// post gives the loop something to do.
func (t *Term) post(in zone.Input) { t.inbox.put(task{in: in}) }
