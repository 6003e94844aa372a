package world

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/container"
	"github.com/mammoth-os/mammoth/nodemanager/node"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// host is a machine that is a node. Its engine and what the NodeManager has brought to the disk outlive the NodeManager.
type host struct {
	w      *World
	name   string
	cpu    int64
	engine *engine
	// manager is the present run of the NodeManager, or the last one.
	manager *nodeManager
	runs    int
	// records are what is on the disk of containers, by id.
	records map[string]record
	// folders counts the folders that its NodeManager has had.
	folders int
	// forgetful: it has lost its records, and has not registered since.
	forgetful bool
	// skew is how much its clock is ahead.
	skew time.Duration
	// full says that its disk is full, off that the machine has no power.
	full, off bool
}

// record is a container as it is written down: its fields under way are not.
type record struct {
	core        []byte
	lease, spec []byte
}

func newHost(w *World, name string, cpu int64) *host {
	h := &host{w: w, name: name, cpu: cpu, records: map[string]record{}}
	h.engine = &engine{host: h, programs: map[id.Container]*program{}}
	return h
}

// clock is what time the machine thinks it is.
func (h *host) clock() time.Time { return h.w.now.Add(h.skew) }

func (h *host) capacity() *corev1.Resources {
	return &corev1.Resources{CpuMillis: h.cpu, MemoryBytes: 8 << 30, DiskBytes: 64 << 30, Ports: 500}
}

// startManager starts a NodeManager on what is written down.
func (h *host) startManager() {
	if h.off || h.manager != nil && !h.manager.process.dead {
		return
	}
	h.runs++
	m := &nodeManager{
		w: h.w, host: h, process: h.w.newProcess(h.name, "the NodeManager of "+h.name), address: fmt.Sprintf("%s:%d", h.name, 7000+h.runs),
		id: fmt.Sprintf("process %d of %s", h.runs, h.name), changed: map[string]*corev1.ContainerStatus{}, waiting: map[id.Container][]func(){},
		node: node.New(node.Settings{
			ID: h.name, Address: h.name, Runtimes: []corev1.ContainerSpec_Runtime{corev1.ContainerSpec_DOCKER, corev1.ContainerSpec_PROCESS},
			Machine: container.Machine{
				Retention: time.Hour, RetryMin: 200 * time.Millisecond, RetryMax: 5 * time.Second, LaunchTimeout: 5 * time.Minute, ExitTimeout: time.Second,
			},
		}),
	}
	h.manager = m
	h.w.trace("%s starts", m.process.name)
	m.begin()
}

// killManager ends the NodeManager. Of what it was writing down, a part may be on the disk. Its containers go on.
func (h *host) killManager() {
	m := h.manager
	if m.process.dead {
		return
	}
	if len(m.writing) > 0 && h.w.chance(2) {
		h.apply(m.writing)
	}
	m.process.kill()
	h.w.trace("%s is killed", m.process.name)
}

// crash takes the power of the machine: nothing of it goes on, but for what is on its disk.
func (h *host) crash() {
	h.killManager()
	h.off = true
	for _, p := range h.engine.sorted() {
		p.ended(container.Ending{Code: 255, EngineDown: true}, false)
	}
	h.engine.life++
}

func (h *host) powerUp() {
	h.off = false
	h.startManager()
}

// write is a change of a record; nil is its removal.
type write struct {
	key    string
	record *record
	// awaited says that somebody waits for it to be on the disk.
	awaited bool
}

// apply brings changes to the disk.
func (h *host) apply(writes []write) {
	for _, w := range writes {
		if w.record == nil {
			delete(h.records, w.key)
			continue
		}
		h.records[w.key] = *w.record
	}
}

func recordOf(h *node.Entry) *record {
	core, err := json.Marshal(h.Core)
	if err != nil {
		panic(err)
	}
	return &record{core: core, lease: marshal(h.Lease), spec: marshal(h.Spec)}
}

// held reads what is written down.
func (h *host) held() []*node.Entry {
	var all []*node.Entry
	for _, key := range slices.Sorted(maps.Keys(h.records)) {
		r := h.records[key]
		held := &node.Entry{Core: &container.Container{}, Lease: &corev1.Lease{}, Spec: &corev1.ContainerSpec{}}
		if err := json.Unmarshal(r.core, held.Core); err != nil {
			panic(err)
		}
		unmarshal(r.lease, held.Lease)
		unmarshal(r.spec, held.Spec)
		all = append(all, held)
	}
	return all
}

func marshal(m proto.Message) []byte {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return raw
}

func unmarshal(raw []byte, into proto.Message) {
	if err := proto.Unmarshal(raw, into); err != nil {
		panic(err)
	}
}
