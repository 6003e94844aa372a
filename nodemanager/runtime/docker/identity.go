package docker

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mammoth-os/mammoth/internal/id"
)

// A container belongs to this node if the node has created it. Labels do not show that: an image made by "docker commit" has the
// labels of its container, and so has every container of that image. So the node writes down the engine's id of each container
// before it starts it. A container without such a note, because the node's folder was lost or the NodeManager was killed in between,
// is recognised by its name, which no copy can have while the original exists.

// noteFile holds the engine's id of a container.
func (r *Runtime) noteFile(key id.Container) string {
	return filepath.Join(r.config.LogDir, key.String()+".engine")
}

// note writes down the engine's id of a container. If that fails the container is recognised by its name.
func (r *Runtime) note(key id.Container, runtimeID string) {
	r.mu.Lock()
	r.notes[key] = runtimeID
	r.mu.Unlock()
	err := os.MkdirAll(r.config.LogDir, 0o750)
	if err == nil {
		err = os.WriteFile(r.noteFile(key), []byte(runtimeID), 0o640)
	}
	if err != nil {
		r.config.Logger.Warn("the engine's id of a container is not written down", "container", key.String(), "error", err)
	}
}

// noted is the engine's id of the container that this node has made; empty if it is not known.
func (r *Runtime) noted(key id.Container) string {
	r.mu.Lock()
	runtimeID, ok := r.notes[key]
	r.mu.Unlock()
	if ok {
		return runtimeID
	}
	text, err := os.ReadFile(r.noteFile(key))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "" // asked again the next time
	}
	runtimeID = strings.TrimSpace(string(text))
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.notes[key]; ok { // it was made meanwhile
		return known
	}
	if runtimeID != "" {
		r.notes[key] = runtimeID
	}
	return runtimeID
}

// forget deletes the note of a container that is no more.
func (r *Runtime) forget(key id.Container) error {
	r.mu.Lock()
	delete(r.notes, key)
	r.mu.Unlock()
	return removeFile(r.noteFile(key))
}

// own reports whether this node has created a container with its labels.
func (r *Runtime) own(key id.Container, runtimeID string, names ...string) bool {
	if noted := r.noted(key); noted != "" {
		return noted == runtimeID
	}
	for _, one := range names {
		if strings.TrimPrefix(one, "/") == name(key) {
			return true
		}
	}
	return false
}

// handle is the engine's id of a container if it is known, else its name.
func (r *Runtime) handle(key id.Container) string {
	if noted := r.noted(key); noted != "" {
		return noted
	}
	return name(key)
}
