package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// endpoint is one entry of a service, over REST: starting a command for each look would be most of what is measured.
type endpoint struct {
	ID, ContainerID, State string
}

func (b *bench) registry(name string) ([]endpoint, error) {
	var service struct{ Endpoints []endpoint }
	_, err := b.get("/v1/registry/services/"+name, &service)
	return service.Endpoints, err
}

// registeredSince tells whether the node has registered anew since an instant.
func (b *bench) registeredSince(instant time.Time) (bool, error) {
	var list struct {
		Nodes []struct{ RegisteredAt time.Time }
	}
	found, err := b.get("/v1/nodes", &list)
	return found && len(list.Nodes) == 1 && list.Nodes[0].RegisteredAt.After(instant), err
}

// get reads a JSON answer; it is false when there is no such thing.
func (b *bench) get(path string, into any) (bool, error) {
	request, err := http.NewRequestWithContext(b.ctx, http.MethodGet, "http://"+b.zone.Address+path, nil)
	if err != nil {
		return false, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotFound {
		return false, nil
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	return true, nil
}
