package docker

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/docker/docker/api/types/filters"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// These are the labels of a container. Those of the spec follow labelOwn.
const (
	labelZone      = "mammoth.zone"
	labelNode      = "mammoth.node"
	labelContainer = "mammoth.container"
	labelEpoch     = "mammoth.epoch"
	labelApp       = "mammoth.app"
	labelAttempt   = "mammoth.attempt"
	labelPorts     = "mammoth.ports"
	labelCPU       = "mammoth.cpu"
	labelMemory    = "mammoth.memory"
	labelPids      = "mammoth.pids"
	labelDisk      = "mammoth.disk"
	labelOwn       = "mammoth.label."
)

func name(key id.Container) string { return "mammoth-" + key.String() }

// identities owns which of the engine's containers are this node's: the labels that the node gives them, and the engine's id of
// each, which is stored in a file too.
//
// A container belongs to this node if the node has created it. Labels do not show that: an image of "docker commit" has the
// labels of its container, and so does every container of that image. So the node stores the engine's id of each container
// before it starts it. A container without a stored id, because the node's folder was lost or the NodeManager was killed in
// between, is recognised by its name, which no copy can have while the original exists.
type identities struct {
	zone, node string
	// dir has the files with the engine's ids.
	dir    string
	logger *slog.Logger

	mu  sync.Mutex
	ids map[id.Container]string
}

func (o *identities) labels(spec runtime.Spec, ports []runtime.Port) map[string]string {
	labels := map[string]string{
		labelZone:      o.zone,
		labelNode:      o.node,
		labelContainer: spec.ID.String(),
		labelEpoch:     strconv.FormatInt(spec.ID.Epoch, 10),
		labelApp:       spec.AppName,
		labelAttempt:   strconv.FormatInt(int64(spec.Attempt), 10),
		labelPorts:     formatPorts(ports),
		labelCPU:       strconv.FormatInt(spec.CPUMillis, 10),
		labelMemory:    strconv.FormatInt(spec.MemoryBytes, 10),
		labelPids:      strconv.FormatInt(spec.Pids, 10),
		labelDisk:      strconv.FormatInt(spec.DiskBytes, 10),
	}
	for key, value := range spec.Labels {
		labels[labelOwn+key] = value
	}
	return labels
}

// marked reports whether a container has the labels of this node.
func (o *identities) marked(labels map[string]string) bool {
	return labels[labelZone] == o.zone && labels[labelNode] == o.node && labels[labelContainer] != ""
}

// filter selects this node's containers.
func (o *identities) filter() filters.Args {
	return filters.NewArgs(
		filters.Arg("label", labelZone+"="+o.zone),
		filters.Arg("label", labelNode+"="+o.node),
		filters.Arg("label", labelContainer),
	)
}

// file is the file with the engine's id of a container.
func (o *identities) file(key id.Container) string {
	return filepath.Join(o.dir, key.String()+".engine")
}

// record stores the engine's id of a container. If that fails the container is recognised by its name.
func (o *identities) record(key id.Container, runtimeID string) {
	o.mu.Lock()
	o.ids[key] = runtimeID
	o.mu.Unlock()
	err := os.MkdirAll(o.dir, 0o750)
	if err == nil {
		err = os.WriteFile(o.file(key), []byte(runtimeID), 0o640)
	}
	if err != nil {
		o.logger.Warn("cannot store the engine's id of a container", "container", key.String(), "error", err)
	}
}

// recorded is the engine's id of a container of this node; empty if unknown.
func (o *identities) recorded(key id.Container) string {
	o.mu.Lock()
	runtimeID, ok := o.ids[key]
	o.mu.Unlock()
	if ok {
		return runtimeID
	}
	text, err := os.ReadFile(o.file(key))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "" // it is read again the next time
	}
	runtimeID = strings.TrimSpace(string(text))
	o.mu.Lock()
	defer o.mu.Unlock()
	if known, ok := o.ids[key]; ok { // it was created meanwhile
		return known
	}
	if runtimeID != "" {
		o.ids[key] = runtimeID
	}
	return runtimeID
}

// forget deletes the stored id of a container that does not exist any more.
func (o *identities) forget(key id.Container) error {
	o.mu.Lock()
	delete(o.ids, key)
	o.mu.Unlock()
	return removeFile(o.file(key))
}

// own reports whether this node has created a container with its labels.
func (o *identities) own(key id.Container, runtimeID string, names ...string) bool {
	if noted := o.recorded(key); noted != "" {
		return noted == runtimeID
	}
	for _, one := range names {
		if strings.TrimPrefix(one, "/") == name(key) {
			return true
		}
	}
	return false
}

// handle is the engine's id of a container if known, else its name.
func (o *identities) handle(key id.Container) string {
	if noted := o.recorded(key); noted != "" {
		return noted
	}
	return name(key)
}

// formatPorts writes NAME/CONTAINER/HOST for each port, in the spec's order, separated by spaces. HOST is 0 if the engine
// chooses.
func formatPorts(ports []runtime.Port) string {
	words := make([]string, len(ports))
	for i, port := range ports {
		words[i] = fmt.Sprintf("%s/%d/%d", port.Name, port.Container, port.Host)
	}
	return strings.Join(words, " ")
}

func parsePorts(text string) []runtime.Port {
	var ports []runtime.Port
	for _, word := range strings.Fields(text) {
		parts := strings.Split(word, "/")
		if len(parts) != 3 {
			continue
		}
		inner, err := strconv.Atoi(parts[1])
		host, err2 := strconv.Atoi(parts[2])
		if err == nil && err2 == nil {
			ports = append(ports, runtime.Port{Name: parts[0], Container: inner, Host: host})
		}
	}
	return ports
}
