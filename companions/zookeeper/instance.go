package zookeeper

import (
	"encoding/json"
	"strings"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// instance is an entry in the format of Apache Curator's service discovery.
type instance struct {
	Name                string   `json:"name"`
	ID                  string   `json:"id"`
	Address             string   `json:"address"`
	Port                *int32   `json:"port"`
	SSLPort             *int32   `json:"sslPort"`
	Payload             *payload `json:"payload"`
	RegistrationTimeUTC int64    `json:"registrationTimeUTC"`
	ServiceType         string   `json:"serviceType"`
	URISpec             uriSpec  `json:"uriSpec"`
	// Curator's clients skip instances that are not enabled.
	Enabled bool `json:"enabled"`
}

// payload is the part of an entry that Curator leaves to the application. Java programs read it as a map.
type payload struct {
	Class string `json:"@class"`
	// Distinguishes the zone's entries from others.
	ManagedBy string            `json:"managedBy"`
	State     string            `json:"state"`
	Weight    int32             `json:"weight"`
	Version   int32             `json:"version"`
	Node      string            `json:"node,omitempty"`
	Container string            `json:"container,omitempty"`
	Ports     map[string]int32  `json:"ports"`
	Values    map[string]string `json:"values"`
}

type uriSpec struct {
	Parts []part `json:"parts"`
}

type part struct {
	Value    string `json:"value"`
	Variable bool   `json:"variable"`
}

// encode converts an endpoint to Curator's format.
func encode(zone, service string, e *apiv1.Endpoint) []byte {
	port := e.GetPort()
	entry := instance{
		Name: service, ID: e.GetId(), Address: e.GetAddress(), Port: &port,
		Payload: &payload{
			Class: "java.util.LinkedHashMap", ManagedBy: owner(zone), State: e.GetState().String(), Weight: e.GetWeight(),
			Version: e.GetVersion(), Node: e.GetNode(), Container: e.GetContainerId(), Ports: e.GetPorts(), Values: e.GetValues(),
		},
		// The entry is not bound to a session.
		ServiceType: "PERMANENT",
		URISpec: uriSpec{Parts: []part{
			{"scheme", true}, {"://", false}, {"address", true}, {":", false}, {"port", true},
		}},
		Enabled: e.GetState() == apiv1.Endpoint_HEALTHY && e.GetWeight() > 0,
	}
	if entry.Payload.Ports == nil {
		entry.Payload.Ports = map[string]int32{}
	}
	if entry.Payload.Values == nil {
		entry.Payload.Values = map[string]string{}
	}
	if at := e.GetRegisteredAt(); at != nil {
		entry.RegistrationTimeUTC = at.AsTime().UnixMilli()
	}
	text, err := json.Marshal(entry)
	if err != nil {
		// It has only strings and numbers.
		panic(err)
	}
	return text
}

// disabled is an entry of the zone's with enabled set to false.
func disabled(entry []byte) []byte {
	var read instance
	if json.Unmarshal(entry, &read) != nil {
		return entry
	}
	read.Enabled = false
	text, err := json.Marshal(read)
	if err != nil {
		return entry
	}
	return text
}

func owner(zone string) string { return "mammoth/" + zone }

// isOurs reports whether an entry is one that the zone wrote.
func isOurs(zone string, entry []byte) bool {
	var read struct {
		Payload json.RawMessage `json:"payload"`
	}
	if json.Unmarshal(entry, &read) != nil {
		return false
	}
	var marked struct {
		ManagedBy string `json:"managedBy"`
	}
	return json.Unmarshal(read.Payload, &marked) == nil && marked.ManagedBy == owner(zone)
}

// isNodeName reports whether a name can be one part of a path in ZooKeeper.
func isNodeName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r == '/' || r >= 0x7f
	})
}
