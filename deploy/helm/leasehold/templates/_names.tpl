{{- define "leasehold.name" -}}
{{- if contains "leasehold" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-leasehold" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "leasehold.selector" -}}
app.kubernetes.io/name: leasehold
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "leasehold.labels" -}}
{{ include "leasehold.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "leasehold.account" -}}
{{ .Values.serviceAccount.name | default (include "leasehold.name" .) }}
{{- end }}

{{- define "leasehold.toml" -}}
listen = "0.0.0.0:{{ .Values.ports.postgres }}"
listen_public = true
{{- with .Values.allowAddresses }}
allow_addresses = {{ toJson . }}
{{- end }}
http = "0.0.0.0:{{ .Values.ports.metrics }}"
state_file = "/state/leasehold"
min_sigterm_delay = {{ .Values.minSigtermDelay | quote }}
max_sigterm_delay = {{ .Values.maxSigtermDelay | quote }}

{{ required "config: the end of leasehold.toml, with [vault] and at least one [[route]]" .Values.config }}
{{- end }}
