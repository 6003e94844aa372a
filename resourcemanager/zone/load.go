package zone

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/endpoints"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/keys"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/shares"
)

// Records is what a zone is made of when the ResourceManager starts.
type Records interface {
	// Identity is who the zone is, and how often its store was opened.
	Identity() store.Identity
	// Load calls each for every record of a kind, in the order of their keys. The bytes are each's to keep.
	Load(kind store.Kind, each func(key string, value []byte) error) error
	// LastEvent is the newest sequence number of an event ever used; zero if none was.
	LastEvent() int64
}

// Start is what a zone begins with besides its records.
type Start struct {
	Settings Settings
	Now      time.Time
	Seed     Seed
	// QueueFile is the text of the file that declares the queue tree; it does not count if Settings name no file.
	QueueFile shares.FileText
}

// Load makes the zone out of what is stored. What it has of nodes may be out of date: they stay closed until they
// register. A master has as much time to come back as after the loss of its stream.
func Load(stored Records, start Start) (*Core, *Ready, error) {
	z := newCore(config{Settings: start.Settings, identity: stored.Identity(), started: start.Now}, stored.LastEvent())
	z.Begin(start.Now, start.Seed)
	for _, load := range []func(Records) error{
		z.damage.load, z.units.load, z.loadKeys, z.scheduler.load, z.loadBalancers, z.loadQueues, z.loadContracts,
		z.nodes.load, z.packages.load, z.apps.load, z.versions.load, z.apps.joinQueues, z.leases.load, z.masters.load, z.asks.load,
	} {
		if err := load(stored); err != nil {
			return nil, nil, fmt.Errorf("read what is stored: %w", err)
		}
	}
	if err := z.queues.LoadDeclaration(start.QueueFile, z.apps.queuedApps()); err != nil {
		return nil, nil, err
	}
	for _, a := range z.apps.sorted() {
		z.attempts.heard(a)
		z.apps.announce(a)
		z.apps.touch(a)
	}
	z.settle()
	z.waits.start()
	z.waits.inspectDue()
	z.views.showAll()
	out, err := z.handOver()
	return z, out, err
}

func (z *Core) loadKeys(stored Records) error {
	zone := &storev1.Zone{}
	err := loadRecords(stored, keys.KindZone, func(record *storev1.Zone) error {
		zone = record
		return nil
	})
	if err == nil {
		z.keys.Load(zone)
	}
	return err
}

func (z *Core) loadBalancers(stored Records) error {
	balancers := &storev1.Balancers{}
	err := loadRecords(stored, endpoints.KindBalancers, func(record *storev1.Balancers) error {
		balancers = record
		return nil
	})
	if err == nil {
		z.balancers.Load(balancers)
	}
	return err
}

func (z *Core) loadQueues(stored Records) error {
	return loadRecords(stored, shares.KindQueues, z.queues.Load)
}

func (z *Core) loadContracts(stored Records) error {
	var contracts []*storev1.Contract
	err := loadRecords(stored, shares.KindContract, func(record *storev1.Contract) error {
		contracts = append(contracts, record)
		return nil
	})
	if err == nil {
		err = z.lending.Load(contracts)
	}
	return z.damage.tolerate(err)
}

// loadRecords reads every record of a kind.
func loadRecords[M any, P interface {
	*M
	proto.Message
}](stored Records, kind store.Kind, each func(P) error) error {
	return stored.Load(kind, func(key string, raw []byte) error {
		record := P(new(M))
		if err := proto.Unmarshal(raw, record); err != nil {
			return fmt.Errorf("the %s record %q: %w", kind, key, err)
		}
		return each(record)
	})
}
