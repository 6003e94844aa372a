package runtime

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Environment is a container's environment, as sorted KEY=VALUE: the spec's own, and for the bound ports of Spec.Ports PORT,
// the first, and PORT_<NAME> for each. With Bridge that is the port inside the container, and the spec's own value overrides
// it; with Host it is the leased port, which cannot be overridden.
func Environment(spec Spec, ports []Port) []string {
	env := make(map[string]string, len(spec.Env)+len(ports)+1)
	maps.Copy(env, spec.Env)
	set := func(key string, port Port) {
		if spec.Network == Host {
			env[key] = strconv.Itoa(port.Host)
		} else if _, own := env[key]; !own {
			env[key] = strconv.Itoa(port.Container)
		}
	}
	for i, port := range ports {
		if i == 0 {
			set("PORT", port)
		}
		if port.Name != "" {
			set("PORT_"+strings.ToUpper(strings.ReplaceAll(port.Name, "-", "_")), port)
		}
	}
	list := make([]string, 0, len(env))
	for key, value := range env {
		list = append(list, key+"="+value)
	}
	slices.Sort(list)
	return list
}
