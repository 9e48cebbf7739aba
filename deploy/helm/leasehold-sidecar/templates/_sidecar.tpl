{{- /*
leasehold beside an app. Each template takes a list: the app's context, and its values for leasehold.

  initContainers:
    {{- include "leasehold-sidecar.container" (list . .Values.leasehold) | nindent 8 }}      first of all
  volumes:
    {{- include "leasehold-sidecar.volumes" (list . .Values.leasehold) | nindent 8 }}
  annotations:
    {{- include "leasehold-sidecar.annotations" (list . .Values.leasehold) | nindent 8 }}    new Pods for a changed setting

and a file of its own:
  {{ include "leasehold-sidecar.configmap" (list . .Values.leasehold) }}
*/}}

{{- define "leasehold-sidecar.values" -}}
{{- $defaults := (index (index . 0).Subcharts "leasehold-sidecar").Values | deepCopy -}}
{{- mustMergeOverwrite $defaults (index . 1 | deepCopy) | toYaml -}}
{{- end }}

{{- define "leasehold-sidecar.name" -}}
{{ printf "%s-leasehold" (index . 0).Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "leasehold-sidecar.toml" -}}
{{- $values := include "leasehold-sidecar.values" . | fromYaml -}}
http = "0.0.0.0:{{ $values.ports.metrics }}"
state_file = "/state/leasehold"

{{ required "leasehold.config: the end of leasehold.toml, with [vault] and a [[route]]" $values.config }}
{{- end }}

{{- define "leasehold-sidecar.configmap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "leasehold-sidecar.name" . }}
data:
  leasehold.toml: |
    {{- include "leasehold-sidecar.toml" . | nindent 4 }}
{{- end }}

{{- define "leasehold-sidecar.annotations" -}}
checksum/leasehold: {{ include "leasehold-sidecar.toml" . | sha256sum }}
{{- end }}

{{- define "leasehold-sidecar.container" -}}
{{- $values := include "leasehold-sidecar.values" . | fromYaml -}}
{{- $version := (index (index . 0).Subcharts "leasehold-sidecar").Chart.AppVersion -}}
- name: leasehold
  image: "{{ $values.image.repository }}:{{ $values.image.tag | default $version }}"
  imagePullPolicy: {{ $values.image.pullPolicy }}
  # A native sidecar: it starts before the app, ends after it, and does not keep a Job from being complete.
  restartPolicy: Always
  args: [run, --config=/etc/leasehold/leasehold.toml]
  env:
    # Out of reach of other containers, whose loopback is the same; commands find it there too.
    - {name: LEASEHOLD_ADMIN, value: /state/admin.sock}
    {{- with $values.env }}{{ toYaml . | nindent 4 }}{{ end }}
  ports:
    - {name: metrics, containerPort: {{ $values.ports.metrics }}}
  terminationMessagePolicy: FallbackToLogsOnError
  startupProbe:
    httpGet: {path: /startup, port: metrics}
    periodSeconds: 1
    timeoutSeconds: 5
    failureThreshold: 600
  livenessProbe:
    httpGet: {path: /livez, port: metrics}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 3
  {{- if $values.readinessProbe }}
  readinessProbe:
    httpGet: {path: /readyz, port: metrics}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 1
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    readOnlyRootFilesystem: true
    allowPrivilegeEscalation: false
    capabilities: {drop: [ALL]}
    seccompProfile: {type: RuntimeDefault}
  resources: {{- toYaml $values.resources | nindent 4 }}
  volumeMounts:
    - {name: leasehold, mountPath: /etc/leasehold, readOnly: true}
    - {name: leasehold-state, mountPath: /state}
{{- end }}

{{- define "leasehold-sidecar.volumes" -}}
{{- $values := include "leasehold-sidecar.values" . | fromYaml -}}
- name: leasehold
  projected:
    sources:
      - configMap: {name: {{ include "leasehold-sidecar.name" . }}}
      {{- with $values.caConfigMaps.vault }}
      - configMap: {name: {{ . }}, items: [{key: ca.crt, path: vault-ca.crt}]}
      {{- end }}
      {{- with $values.caConfigMaps.postgres }}
      - configMap: {name: {{ . }}, items: [{key: ca.crt, path: postgres-ca.crt}]}
      {{- end }}
      - serviceAccountToken: {audience: {{ $values.audience }}, expirationSeconds: 3600, path: vault-token}
# Outlives the container, and not the Pod; never on a disk. Only leasehold's container mounts it.
- name: leasehold-state
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- end }}
