package docker

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mammoth-os/mammoth/internal/id"
)

// A container is this node's if the node has made it. Its labels alone do not say so: an image that somebody makes of it by
// "docker commit" has them too, and with it every container of that image. So the node notes the engine's id of each container
// before it starts it. What has no note, because the node's folder was lost or the node was ended in between, is known by its name,
// which no copy can have while the original is there.

// noteFile holds the engine's id of a container.
func (r *Runtime) noteFile(key id.Container) string {
	return filepath.Join(r.config.LogDir, key.String()+".engine")
}

// note writes down which container was made. Where that fails the name has to do.
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

// own reports whether a container with our labels is the one that this node has made.
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

// handle is what the engine is asked about a container by.
func (r *Runtime) handle(key id.Container) string {
	if noted := r.noted(key); noted != "" {
		return noted
	}
	return name(key)
}
