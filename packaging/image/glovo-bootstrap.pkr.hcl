# An image that serves after its boot. It holds packages, jar and configuration; user-data (glovo-bootstrap user-data
# --baked) does the steps that only an instance can do.
#
#   packer init .
#   packer build -var agent=./glovo-bootstrap -var agent_sha256=HEX -var region=eu-central-1 \
#     -var 'run_arguments=["--set", "jar_url=https://…", "--set", "jar_sha256=HEX", "--set", "config_bucket=my-bucket"]' .

variable "region" {
  type = string
}

variable "agent" {
  type        = string
  description = "The static glovo-bootstrap for the image's architecture, on this machine."
}

variable "agent_sha256" {
  type        = string
  description = "Its SHA-256, from SHA256SUMS."
}

variable "run_arguments" {
  type        = list(string)
  default     = []
  description = "Arguments of glovo-bootstrap bake."
}

variable "instance_profile" {
  type        = string
  default     = ""
  description = "With s3:GetObject on the configuration bucket. Only the build instance has it; the image does not."
}

variable "instance_type" {
  type    = string
  default = "t3.small"
}

locals {
  # The script that Packer runs is a shell's: each argument is quoted for it.
  quoted = [for argument in var.run_arguments : "'${replace(argument, "'", "'\\''")}'"]
}

source "amazon-ebs" "debian" {
  region               = var.region
  instance_type        = var.instance_type
  iam_instance_profile = var.instance_profile
  ssh_username         = "admin"

  # Packer's own key must not stay in the image.
  ssh_clear_authorized_keys = true

  ami_name        = "glovo-bootstrap-${formatdate("YYYYMMDD-hhmmss", timestamp())}"
  ami_description = "Baked by glovo-bootstrap ${var.agent_sha256}"
  encrypt_boot    = true

  # The build instance, and every instance of the image, answer only to IMDSv2.
  imds_support = "v2.0"
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  source_ami_filter {
    # Debian's own account: https://wiki.debian.org/Cloud/AmazonEC2Image
    owners      = ["136693071363"]
    most_recent = true
    filters = {
      name                = "debian-12-amd64-*"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
  }
}

build {
  sources = ["source.amazon-ebs.debian"]

  provisioner "shell" {
    inline = ["cloud-init status --wait"]
  }

  provisioner "file" {
    source      = var.agent
    destination = "/tmp/glovo-bootstrap"
  }

  provisioner "shell" {
    script          = "${path.root}/bake.sh"
    execute_command = "sudo sh {{ .Path }} /tmp/glovo-bootstrap ${var.agent_sha256} ${join(" ", local.quoted)}"
  }
}
