package docker

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mammoth-os/mammoth/internal/id"
)

// A container belongs to this node if the node has created it. Labels do not show that: an image of "docker commit" has the
// labels of its container, and so does every container of that image. So the node stores the engine's id of each container
// before it starts it. A container without a stored id, because the node's folder was lost or the NodeManager was killed in
// between, is recognised by its name, which no copy can have while the original exists.

// idFile is the file with the engine's id of a container.
func (r *Runtime) idFile(key id.Container) string {
	return filepath.Join(r.config.LogDir, key.String()+".engine")
}

// recordID stores the engine's id of a container. If that fails the container is recognised by its name.
func (r *Runtime) recordID(key id.Container, runtimeID string) {
	r.mu.Lock()
	r.ids[key] = runtimeID
	r.mu.Unlock()
	err := os.MkdirAll(r.config.LogDir, 0o750)
	if err == nil {
		err = os.WriteFile(r.idFile(key), []byte(runtimeID), 0o640)
	}
	if err != nil {
		r.config.Logger.Warn("cannot store the engine's id of a container", "container", key.String(), "error", err)
	}
}

// recordedID is the engine's id of a container of this node; empty if unknown.
func (r *Runtime) recordedID(key id.Container) string {
	r.mu.Lock()
	runtimeID, ok := r.ids[key]
	r.mu.Unlock()
	if ok {
		return runtimeID
	}
	text, err := os.ReadFile(r.idFile(key))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "" // it is read again the next time
	}
	runtimeID = strings.TrimSpace(string(text))
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.ids[key]; ok { // it was created meanwhile
		return known
	}
	if runtimeID != "" {
		r.ids[key] = runtimeID
	}
	return runtimeID
}

// forget deletes the stored id of a container that does not exist any more.
func (r *Runtime) forget(key id.Container) error {
	r.mu.Lock()
	delete(r.ids, key)
	r.mu.Unlock()
	return removeFile(r.idFile(key))
}

// own reports whether this node has created a container with its labels.
func (r *Runtime) own(key id.Container, runtimeID string, names ...string) bool {
	if noted := r.recordedID(key); noted != "" {
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
func (r *Runtime) handle(key id.Container) string {
	if noted := r.recordedID(key); noted != "" {
		return noted
	}
	return name(key)
}
